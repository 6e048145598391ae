// SPDX-License-Identifier: Apache-2.0
import TestSupport
import Testing

extension Clusters {
    @Suite struct Snapshot {
        /// A snapshot is taken every 10,000 entries and the log cut 5,000 behind it, by whole segments of 16 MiB: who was
        /// away longer gets the state. What it tells of the past comes with the state, or is said to be gone.
        @Test func `a member that was away longer than the log reaches back gets the state and misses no event`()
            async throws
        {
            var options = RegisterLoad.Options()
            options.clients = 32
            options.writesOnly = true
            options.pause = .zero
            options.timeout = .seconds(10)
            // One segment is full after 4,000 entries.
            options.valueBytes = 4_096
            try await withLoad("snapshot", options: options) { cluster, load, random in
                let leader = try await cluster.waitLeader()
                let away = cluster.indices.first { $0 != leader } ?? 0
                let start = try await cluster.members[away].api("GET", "/v1/configs/probe").json()["version"].int ?? 0
                let follower = EventFollower(cluster, members: [away], after: start, seed: random.seed)
                follower.follow()
                try await eventually("the follower hears something") { !follower.events.isEmpty }
                try await cluster.kill9(away)

                let firstSegment = "\(cluster.members[leader].dataDirectory)/log/00000000000000000001.log"
                #expect(Host.hasFile(firstSegment))
                try await eventually("the log is cut", within: .seconds(120), every: .milliseconds(200)) {
                    !Host.hasFile(firstSegment)
                }
                print("snapshot: \(load.acknowledged) writes while \(TestCluster.name(away)) was away")
                try await cluster.start([away])
                // Under load it comes up to the others all the same.
                try await cluster.waitWritable(through: [away])
                try await load.waitProgress(100)
                try await load.stop()

                let marker = try await cluster.members[away].api("PUT", "/v1/configs/marker", body: "{\"data\": \"\"}")
                let end = try marker.json()["version"].int ?? 0
                try await eventually("the follower is at \(end), or was told of a gap", within: .seconds(60)) {
                    follower.place >= end || !follower.faults.isEmpty
                }
                try await follower.stop()
                if follower.faults.isEmpty {
                    let seen = Set(follower.events.map(\.index))
                    let lost = load.versions.filter { $0 > start && !seen.contains($0) }
                    #expect(lost.isEmpty, "acknowledged and in no event: \(lost.sorted().prefix(5))")
                } else {
                    #expect(follower.faults.allSatisfy { $0.hasPrefix("410 ") }, "\(follower.faults.prefix(5))")
                }
            }
        }
    }
}
