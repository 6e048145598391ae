// SPDX-License-Identifier: Apache-2.0
import TestSupport
import Testing

extension Clusters {
    @Suite struct Partition {
        /// Many clients with little patience: those that ask the member cut off wait in vain.
        private var options: RegisterLoad.Options {
            var options = RegisterLoad.Options()
            options.clients = 12
            options.timeout = .milliseconds(1_500)
            return options
        }

        @Test func `a leader cut off in any direction is replaced, and nothing is lost or stale`() async throws {
            try await withLoad("cut", options: options) { cluster, load, random in
                let kinds = TestCluster.Direction.allCases.shuffled(using: &random)
                for round in 0..<rounds(3) {
                    let leader = try await cluster.waitLeader()
                    let kind = kinds[round % kinds.count]
                    let start = RegisterLoad.now()
                    try await cluster.isolate(leader, kind)
                    let others = cluster.indices.filter { $0 != leader }
                    try await cluster.waitWritable(through: others)
                    try await load.waitProgress(20)
                    let silence = Int(load.longestSilence(from: start, to: RegisterLoad.now()) / .milliseconds(1))
                    print(
                        "round \(round): leader \(TestCluster.name(leader)) cut off, \(kind): \(silence) ms without writes"
                    )
                    let healed = ContinuousClock.now
                    try await cluster.heal()
                    try await cluster.waitWritable()
                    print("  healed: writes through all after \((ContinuousClock.now - healed))")
                }
            }
        }

        @Test func `a follower cut off in any direction does not unseat the leader for long`() async throws {
            try await withLoad("cutoff", options: options) { cluster, load, random in
                let kinds = TestCluster.Direction.allCases.shuffled(using: &random)
                for round in 0..<rounds(3) {
                    let leader = try await cluster.waitLeader()
                    let others = cluster.indices.filter { $0 != leader }
                    let victim = others[Int.random(in: 0..<others.count, using: &random)]
                    let kind = kinds[round % kinds.count]
                    print("round \(round): follower \(TestCluster.name(victim)) is cut off, \(kind)")
                    try await cluster.isolate(victim, kind)
                    try await cluster.waitWritable(through: cluster.indices.filter { $0 != victim })
                    try await load.waitProgress(20)
                    let healed = ContinuousClock.now
                    try await cluster.heal()
                    try await cluster.waitWritable()
                    print("  healed: writes through all after \((ContinuousClock.now - healed))")
                }
            }
        }

        @Test func `five members go on over a bridge, in a majority and through a flapping network`() async throws {
            try await withLoad("bridge", nodes: 5, options: options) { cluster, load, random in
                for round in 0..<rounds(3) {
                    let order = cluster.indices.shuffled(using: &random)
                    switch round % 3 {
                    case 0:
                        // Both sides of the bridge see a majority, and only the one in the middle sees all.
                        print("round \(round): bridge over \(TestCluster.name(order[2]))")
                        try await cluster.partition([Array(order[0...2]), Array(order[2...4])])
                        try await cluster.waitWritable(through: [order[2]])
                    case 1:
                        print("round \(round): \(order[..<3].map(TestCluster.name)) go on alone")
                        try await cluster.partition([Array(order[..<3]), Array(order[3...])])
                        try await cluster.waitWritable(through: Array(order[..<3]))
                    default:
                        print("round \(round): the network flaps")
                        for _ in 0..<8 {
                            let cut = Int.random(in: 1...4, using: &random)
                            let mixed = cluster.indices.shuffled(using: &random)
                            try await cluster.partition([Array(mixed[..<cut]), Array(mixed[cut...])])
                            let span = Duration.milliseconds(Int.random(in: 50...800, using: &random))
                            try await always("all are up", for: span) { cluster.members.allSatisfy(\.isRunning) }
                            try await cluster.heal()
                        }
                        try await cluster.waitWritable()
                    }
                    try await load.waitProgress(20)
                    let healed = ContinuousClock.now
                    try await cluster.heal()
                    try await cluster.waitWritable()
                    print("  healed: writes through all after \((ContinuousClock.now - healed))")
                }
            }
        }
    }
}
