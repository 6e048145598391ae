// SPDX-License-Identifier: Apache-2.0
import TestSupport
import Testing

/// Consensus on real processes: several daemons in namespaces of their own, under load while they are killed, paused, cut
/// off and out of disk. No acknowledged write is lost and no current read is stale.
///
/// `SEED=n` repeats the choices of a run, `ROUNDS=n` changes how many faults a test makes.
@Suite(
    .serialized, .enabled(if: Host.hasNamespaces && TestAuthority.isAvailable, "needs root, namespaces and openssl"),
    .timeLimit(.minutes(20)))
enum Clusters {
    static func rounds(_ usual: Int) -> Int { Host.environment("ROUNDS").flatMap { Int($0) } ?? usual }

    /// Runs `body` under load and judges what the clients saw.
    static func withLoad(
        _ name: String, nodes: Int = 3, diskMebibytes: Int? = nil, options: RegisterLoad.Options = .init(),
        isolation: isolated (any Actor)? = #isolation,
        _ body: (TestCluster, RegisterLoad, inout TestRandom) async throws -> Void
    ) async throws {
        var random = TestRandom.fromEnvironment()
        print("\(name): SEED=\(random.seed)")
        try await withTestCluster(name, nodes: nodes, diskMebibytes: diskMebibytes) { cluster in
            try await cluster.waitWritable()
            let load = RegisterLoad(cluster, seed: random.seed, options: options)
            load.start()
            do {
                try await load.waitProgress(20)
                try await body(cluster, load, &random)
                try await cluster.heal()
                try await cluster.start(cluster.indices)
                try await cluster.waitWritable()
                if !load.isStopped { try await load.waitProgress(20) }
                try await load.judge()
                try await cluster.expectEqual()
                print("\(name): \(load.summary)")
            } catch {
                try? await load.stop()
                throw TestFailure("SEED=\(random.seed): \(error)\n\(load.summary)")
            }
        }
    }
}

extension Clusters {
    @Suite struct Kill {
        @Test(arguments: [3, 5])
        func `killed members lose nothing that was acknowledged`(nodes: Int) async throws {
            try await withLoad("kill\(nodes)", nodes: nodes) { cluster, load, random in
                for round in 1...rounds(5) {
                    let victims = try await victims(round, cluster, &random)
                    print("round \(round): kill -9 of \(victims.map(TestCluster.name))")
                    try await cluster.kill9(victims)
                    if victims.count < cluster.majority {
                        try await load.waitProgress(10)
                    }
                    try await cluster.start(victims)
                    try await load.waitProgress(10)
                }
            }
        }

        /// One of each kind in every run: leader, follower, majority, all; then by chance.
        private func victims(
            _ round: Int, _ cluster: TestCluster, _ random: inout TestRandom
        ) async throws -> [Int] {
            let leader = try await cluster.waitLeader()
            let others = cluster.indices.filter { $0 != leader }.shuffled(using: &random)
            switch round <= 4 ? round : Int.random(in: 1...4, using: &random) {
            case 1: return [leader]
            case 2: return [others[0]]
            case 3: return Array(([leader] + others).prefix(cluster.majority))
            default: return Array(cluster.indices)
            }
        }
    }
}
