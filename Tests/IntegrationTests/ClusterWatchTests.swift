// SPDX-License-Identifier: Apache-2.0
import TestSupport
import Testing

extension Clusters {
    @Suite struct Watch {
        @Test func `events reach a follower once and in order while leaders are killed`() async throws {
            try await withLoad("watch") { cluster, load, random in
                let start = try await cluster.members[0].api("GET", "/v1/configs/probe").json()["version"].int ?? 0
                let followers = (0..<3).map { number in
                    EventFollower(cluster, after: start, seed: random.seed &+ UInt64(number))
                }
                for follower in followers { follower.follow() }
                for round in 1...rounds(6) {
                    let leader = try await cluster.waitLeader()
                    // Leaders, and members that a follower listens to.
                    let victim = round <= 2 ? leader : followers[round % 3].member ?? leader
                    if round % 2 == 1 {
                        print("round \(round): kill -9 of \(TestCluster.name(victim))")
                        try await cluster.kill9(victim)
                    } else {
                        print("round \(round): \(TestCluster.name(victim)) stops")
                        try await cluster.members[victim].stop()
                    }
                    try await load.waitProgress(50)
                    try await cluster.start([victim])
                    try await load.waitProgress(50)
                }
                try await load.stop()
                let marker = try await cluster.members[0].api("PUT", "/v1/configs/marker", body: "{\"data\": \"\"}")
                let end = try marker.json()["version"].int ?? 0
                for follower in followers {
                    try await eventually("a follower has come to \(end)", within: .seconds(30)) {
                        guard follower.place >= end else { throw TestFailure("it is at \(follower.place)") }
                        return true
                    }
                    try await follower.stop()
                    #expect(follower.faults.isEmpty, "\(follower.faults.prefix(5))")
                }
                #expect(followers.map(\.connections).reduce(0, +) > followers.count, "nobody had to resume")
                // One that reads all of it afterwards sees the same as those that lived through it.
                let late = EventFollower(cluster, after: start, seed: random.seed)
                late.follow()
                try await eventually("the late one is there", within: .seconds(30)) { late.place >= end }
                try await late.stop()
                let expected = late.events.filter { $0.index <= end }
                for follower in followers {
                    let seen = follower.events.filter { $0.index <= end }
                    print("watch: \(seen.count) events over \(follower.connections) connections")
                    #expect(seen.count == expected.count)
                    #expect(seen == expected, "\(Set(seen).symmetricDifference(expected).prefix(5))")
                }
                let indices = Set(expected.map(\.index))
                let lost = load.versions.filter { $0 > start && !indices.contains($0) }
                #expect(lost.isEmpty, "acknowledged and in no event: \(lost.sorted().prefix(5))")
                #expect(load.versions.count > 100)
            }
        }
    }
}
