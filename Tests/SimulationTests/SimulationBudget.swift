// SPDX-License-Identifier: Apache-2.0
import Foundation

/// How many seeds a run tries: `SEEDS=n`; one only: `SEED=n` (see the Makefile).
enum SimulationBudget {
    static let seeds: UInt64 = ProcessInfo.processInfo.environment["SEEDS"].flatMap { UInt64($0) } ?? 60
}
