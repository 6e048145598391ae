// SPDX-License-Identifier: Apache-2.0
import TestSupport
import Testing

extension Clusters {
    @Suite struct Snapshot {
        /// The log is cut 5,000 entries behind a snapshot, which is taken every 10,000: who was away longer gets the state.
        @Test func `a member that was away longer than the log reaches back gets the whole state and follows on`()
            async throws
        {
            var options = RegisterLoad.Options()
            options.clients = 48
            options.writesOnly = true
            options.pause = .zero
            options.timeout = .seconds(10)
            try await withLoad("snapshot", options: options) { cluster, load, _ in
                let leader = try await cluster.waitLeader()
                let away = cluster.indices.first { $0 != leader } ?? 0
                let before = try await cluster.members[away].api("GET", "/v1/status").json()["applied_index"].int ?? 0
                try await cluster.kill9(away)
                try await eventually("the log is cut above \(before)", within: .seconds(240), every: .milliseconds(500))
                {
                    let status = await cluster.status(leader)
                    guard let first = status?["log"]["first_index"].int else { return false }
                    guard first > before + 1 else { throw TestFailure("the log begins at \(first)") }
                    return true
                }
                print("snapshot: \(load.acknowledged) writes while \(TestCluster.name(away)) was away")
                try await cluster.start([away])
                // Under load it must come up to the others all the same.
                try await cluster.waitWritable(through: [away])
                try await load.waitProgress(100)
                let status = await cluster.status(away)
                #expect(status?["log"]["first_index"].int ?? 0 > before + 1, "\(status ?? .null)")
                // Its events begin after the state it was given: what lies before is said to be gone, not left out.
                let old = try await cluster.members[away].api("GET", "/v1/events?after=\(before)", timeoutSeconds: 5)
                #expect(old.status == 410, "\(old)")
                #expect(try old.json()["code"].string == "compacted")
                try await cluster.kill9(away)
                try await load.waitProgress(100)
            }
        }
    }
}
