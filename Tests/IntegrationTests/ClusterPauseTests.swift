// SPDX-License-Identifier: Apache-2.0
import TestSupport
import Testing

extension Clusters {
    @Suite struct Pause {
        /// A leader that stood still does not know that it leads no more: reads it was asked meanwhile, and at once
        /// afterwards, must not be answered from what it remembers.
        @Test func `a leader that is paused and goes on answers no stale read`() async throws {
            var options = RegisterLoad.Options()
            options.clients = 16
            options.timeout = .seconds(12)
            try await withLoad("pause", options: options) { cluster, load, random in
                for round in 1...rounds(3) {
                    let leader = try await cluster.waitLeader()
                    let others = cluster.indices.filter { $0 != leader }
                    let span = Duration.milliseconds(round == 1 ? 5_000 : Int.random(in: 500...6_000, using: &random))
                    print("round \(round): \(TestCluster.name(leader)) is paused for \(span)")
                    let start = ContinuousClock.now
                    cluster.pause(leader)
                    // Some clients already wait for it, and go on waiting; the others go on with the rest.
                    load.avoid([leader])
                    if span > .seconds(4) {
                        try await cluster.waitLeader(among: others)
                        try await load.waitProgress(20)
                    }
                    try await always("the others are up", for: span - (ContinuousClock.now - start)) {
                        others.allSatisfy { cluster.members[$0].isRunning }
                    }
                    load.avoid([])
                    cluster.resume(leader)
                    try await load.waitProgress(50)
                }
            }
        }
    }
}
