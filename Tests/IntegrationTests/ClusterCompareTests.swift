// SPDX-License-Identifier: Apache-2.0
import TestSupport
import Testing

extension Clusters {
    /// A state that became another one, whatever the cause, is noticed and replaced by what the majority has.
    @Suite struct Compare {
        private static let says = "differs from a majority's"

        /// Wrong from now on, though SQLite finds nothing wrong: the applied index stays.
        private func spoil(_ daemon: TestDaemon) async throws {
            let change = """
                import sqlite3
                state = sqlite3.connect("\(daemon.dataDirectory)/state.sqlite")
                changed = state.execute("UPDATE configs SET data = 'spoilt' WHERE name = 'kept'").rowcount
                state.commit()
                assert changed == 1
                """
            try await Shell.run(["python3", "-c", change]).checked()
        }

        private func prepared(_ cluster: TestCluster) async throws {
            try await cluster.waitWritable()
            let put = try await cluster.members[0].api("PUT", "/v1/configs/kept", body: "{\"data\": \"right\"}")
            try #require(put.status / 100 == 2, "\(put)")
            try await cluster.expectEqual()
        }

        /// The victim noticed, once, and holds what the others hold.
        private func expectReplaced(_ victim: Int, _ cluster: TestCluster) async throws {
            let daemon = cluster.members[victim]
            try await eventually("\(TestCluster.name(victim)) notices", within: .seconds(60)) {
                daemon.log.contains(Self.says)
            }
            try await eventually("its state is replaced", within: .seconds(60)) {
                let reply = try await daemon.api("GET", "/v1/configs/kept?consistency=local")
                guard try reply.json()["data"].string == "right" else { throw TestFailure(reply.body) }
                return true
            }
            try await cluster.waitWritable()
            try await cluster.expectEqual()
            try await eventually("its status is well again") {
                let status = await cluster.status(victim)
                return status.map { !$0["conditions"].array.contains { $0.string?.contains("differs") == true } }
                    ?? false
            }
            // What is compared from here on is equal: a whole round, agreed after the state was replaced, says nothing.
            let before = try await cluster.members[victim].api("GET", "/v1/status").json()["applied_index"].int ?? 0
            try await cluster.waitWritable(through: [victim])
            try await eventually("states were compared again") {
                let status = await cluster.status(victim)
                return (status?["applied_index"].int ?? 0) >= before + 2
            }
            try await cluster.expectEqual()
            for member in cluster.indices {
                let lines = cluster.members[member].log.split(separator: "\n").filter { $0.contains(Self.says) }
                #expect(lines.count == (member == victim ? 1 : 0), "\(TestCluster.name(member)): \(lines)")
            }
        }

        @Test func `a member whose state was changed behind its back notices and takes the others'`() async throws {
            try await withTestCluster("compare", arguments: ["--compare-interval", "1s"]) { cluster in
                try await prepared(cluster)
                let leader = try await cluster.waitLeader()
                let victim = (leader + 1) % 3
                try await cluster.kill9(victim)
                try await spoil(cluster.members[victim])
                try await cluster.start([victim])
                // States are compared when something changed.
                try await cluster.waitWritable(through: [leader])
                try await expectReplaced(victim, cluster)
            }
        }

        @Test func `a leader whose state is wrong gives leadership up and takes the others' state`() async throws {
            try await withTestCluster("cmplead", arguments: ["--compare-interval", "1s"]) { cluster in
                try await prepared(cluster)
                let victim = 0, second = 1, third = 2
                try await cluster.kill9(cluster.indices)
                try await spoil(cluster.members[victim])
                // Two of three know that they differ and not who is right.
                try await cluster.start([victim, second])
                try await eventually("the spoilt one leads") {
                    guard await cluster.leader(among: [victim, second]) != victim else { return true }
                    _ = try await cluster.members[second].cli("cluster", "transfer-leader", TestCluster.name(victim))
                    return false
                }
                #expect(!cluster.members[victim].log.contains(Self.says))
                try await cluster.start([third])
                try await cluster.waitWritable(through: [second])
                try await expectReplaced(victim, cluster)
                let log = cluster.members[victim].log
                let noticed = try #require(log.firstRange(of: Self.says))
                #expect(log[noticed.upperBound...].contains("role=follower"), "it led on: \(log.suffix(2_000))")
            }
        }
    }
}
