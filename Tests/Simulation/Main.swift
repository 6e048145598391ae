// SPDX-License-Identifier: Apache-2.0

internal import Raft

@main
struct Simulate {
    static func main() {
        let arguments = CommandLine.arguments.dropFirst().compactMap { UInt64($0) }
        let prints = CommandLine.arguments.contains("--trace")
        let first = arguments.first ?? 1
        let count = arguments.count > 1 ? arguments.dropFirst().first ?? 1 : 1
        let clock = ContinuousClock()
        let begun = clock.now
        var steps = 0
        for seed in first..<first + count {
            let cluster = Cluster(seed: seed, prints: prints)
            do {
                try cluster.run()
            } catch {
                print("SEED=\(seed) \(error) at \(cluster.now / 1000) ms, step \(cluster.steps)")
            }
            steps += cluster.steps
            if count <= 20 { print("\(seed) \(cluster.trace) \(cluster.steps) steps, committed \(cluster.checker.commitIndex) history \(cluster.checker.history.count)") }
        }
        print("\(count) seeds, \(steps) steps, \(clock.now - begun)")
    }
}
