// SPDX-License-Identifier: Apache-2.0
import Foundation

/// How many seeds a run tries: `SEEDS=n`; one only: `SEED=n` (see the Makefile).
enum SimulationBudget {
    static let seeds: [UInt64] = {
        func number(_ name: String) -> UInt64? { ProcessInfo.processInfo.environment[name].flatMap { UInt64($0) } }
        if let one = number("SEED") { return [one] }
        return Array(1...(number("SEEDS") ?? 60))
    }()
}
