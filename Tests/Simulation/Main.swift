// SPDX-License-Identifier: Apache-2.0

internal import Glibc
internal import Raft

/// Runs simulated clusters: many seeds on every core, one seed with a trace, planted bugs until each is found.
@main
struct Simulate {
    static let usage = """
        usage: simulate run [--seeds N] [--from SEED] [--workers N] [--hashes]
               simulate replay SEED [--trace]
               simulate planted [--seeds N] [--bug NAME]
               simulate explore [--states N] [--messages N]
               simulate fleet [--seed N] [--nodes N] [--tasks N] [--seconds N]
               simulate schedule [--nodes N] [--tasks N] [--rounds N]
        """

    static func main() {
        let arguments = Array(CommandLine.arguments.dropFirst())
        switch arguments.first {
        case "run": exit(run(arguments))
        case "replay":
            guard arguments.count > 1, let seed = UInt64(arguments[1]) else { return refuse() }
            plant(arguments)
            exit(replay(seed, prints: arguments.contains("--trace")) == nil ? 0 : 1)
        case "worker": work(arguments)
        case "explore":
            plant(arguments)
            exit(explore(arguments))
        case "planted": exit(findPlanted(arguments))
        case "fleet": exit(runFleet(arguments))
        case "schedule": exit(measureScheduling(arguments))
        default: refuse()
        }
    }

    private static func refuse() {
        say(usage)
        exit(2)
    }

    static func number(_ name: String, _ arguments: [String], or standard: UInt64) -> UInt64 {
        text(name, arguments).flatMap { UInt64($0) } ?? standard
    }

    static func text(_ name: String, _ arguments: [String]) -> String? {
        guard let place = arguments.firstIndex(of: name), place + 1 < arguments.count else { return nil }
        return arguments[place + 1]
    }

    private static func plant(_ arguments: [String]) {
        guard let name = text("--bug", arguments) else { return }
        #if PLANTED_BUGS
            Planted.active = Planted.Bug(rawValue: name)
        #else
            say("error: bug `\(name)` is not in this build; `make planted-bugs` makes one that has it")
            exit(2)
        #endif
    }

    // MARK: - One seed

    @discardableResult
    private static func replay(_ seed: UInt64, prints: Bool) -> Violation? {
        let cluster = Cluster(seed: seed, prints: prints)
        let violation = cluster.outcome()
        if let violation {
            say("SEED=\(seed) \(violation)")
            say("at \(cluster.now / 1_000) ms, step \(cluster.steps), with \(cluster.options)")
        } else {
            say("SEED=\(seed) holds: \(cluster.steps) steps, trace \(String(cluster.trace, radix: 16))")
        }
        return violation
    }

    /// Seeds from `--from` in steps of `--stride`, a line each; the parent reads them.
    private static func work(_ arguments: [String]) {
        plant(arguments)
        let stride = number("--stride", arguments, or: 1)
        var seed = number("--from", arguments, or: 1)
        let end = number("--end", arguments, or: seed + 1)
        while seed < end {
            let cluster = Cluster(seed: seed)
            if let violation = cluster.outcome() {
                let detail = violation.detail.split(separator: "\n").joined(separator: "; ")
                say("\(seed)\t\(cluster.steps)\t\(cluster.trace)\t\(violation.invariant)\t\(detail)")
            } else {
                say("\(seed)\t\(cluster.steps)\t\(cluster.trace)")
            }
            seed += stride
        }
    }

    // MARK: - Many seeds

    /// Not a divisor of eight, after which the kinds of seeds come again: each worker gets as much of every kind.
    private static let workers = 3

    private static func run(_ arguments: [String]) -> Int32 {
        let count = number("--seeds", arguments, or: 1_000)
        let from = number("--from", arguments, or: 1)
        let clock = ContinuousClock()
        let begun = clock.now
        var crew = Crew(workers: Int(number("--workers", arguments, or: UInt64(workers))))
        var failures: [SeedResult] = []
        var steps: UInt64 = 0
        var done: UInt64 = 0
        var trace: UInt64 = 0
        var traces: [UInt64: UInt64] = [:]
        func take(_ result: SeedResult) -> Bool {
            done += 1
            steps += result.steps
            trace ^= mix(result.seed, result.trace)
            if traces.count < 20 { traces[result.seed] = result.trace }
            if arguments.contains("--hashes") { say("\(result.seed) \(String(result.trace, radix: 16))") }
            if let invariant = result.invariant {
                failures.append(result)
                say("SEED=\(result.seed) \(invariant.rawValue): \(result.detail)")
            }
            if done % 1_000 == 0 { say("\(done) seeds, \(failures.count) failed, \(clock.now - begun)") }
            return failures.count < 20
        }
        // Seeds that once failed come first.
        var goesOn = true
        for known in KnownSeeds.all where goesOn && from == 1 {
            crew.run(from: known.seed, end: known.seed + 1, bug: nil) { goesOn = take($0) && goesOn }
        }
        if goesOn {
            crew.run(from: from, end: from + count, bug: nil) {
                goesOn = take($0) && goesOn; return goesOn
            }
        }
        if goesOn { failures += compareTraces(traces) }
        let seconds = max(0.001, Double((clock.now - begun).components.seconds))
        say(
            "\(done) seeds, \(failures.count) failed, \(steps) steps in \(Int(seconds)) s "
                + "(\(Int(Double(steps) / seconds)) steps/s), traces \(String(trace, radix: 16))")
        for failure in failures.prefix(3) { say("replay: SEED=\(failure.seed) make simulate") }
        return failures.isEmpty ? 0 : 1
    }

    private static func explore(_ arguments: [String]) -> Int32 {
        let messages = Int(number("--messages", arguments, or: 1_000))
        var exploration = Exploration(
            statesMax: Int(number("--states", arguments, or: 1_000_000)), messagesMax: messages)
        let clock = ContinuousClock()
        let begun = clock.now
        do {
            try exploration.run()
        } catch {
            say("after \(exploration.states) states: \(error)")
            return 1
        }
        say(
            "at most \(messages) messages under way: \(exploration.states) distinct states, \(exploration.deepest) deep, up to \(exploration.commits) committed, "
                + "\(exploration.isCut ? "cut there" : "all there are"), no violation, \(clock.now - begun)")
        return 0
    }

    /// Runs the same seeds in another process, where hashes are seeded otherwise: everything must happen alike.
    private static func compareTraces(_ traces: [UInt64: UInt64]) -> [SeedResult] {
        var differing: [SeedResult] = []
        for (seed, trace) in traces.sorted(by: { $0.key < $1.key }) {
            var crew = Crew(workers: 1)
            crew.run(from: seed, end: seed + 1, bug: nil) { result in
                guard result.trace != trace else { return }
                differing.append(result)
                say("SEED=\(seed) goes otherwise in a second process")
            }
        }
        return differing
    }

    private static func findPlanted(_ arguments: [String]) -> Int32 {
        let limit = number("--seeds", arguments, or: 10_000)
        let wanted = text("--bug", arguments)
        var missed: [String] = []
        say("| bug | seed | steps | caught by |\n|---|---|---|---|")
        for bug in Planted.Bug.allCases where wanted == nil || bug.rawValue == wanted {
            var crew = Crew(workers: workers)
            var found: SeedResult?
            crew.run(from: 1, end: 1 + limit, bug: bug.rawValue) { result in
                guard result.invariant != nil else { return true }
                if found == nil { found = result }
                return false
            }
            if let found, let invariant = found.invariant {
                say("| \(bug.rawValue) | \(found.seed) | \(found.steps) | \(invariant.rawValue) |")
            } else {
                say("| \(bug.rawValue) | not found in \(limit) seeds | | |")
                missed.append(bug.rawValue)
            }
        }
        if !missed.isEmpty { say("not found: \(missed.joined(separator: ", "))") }
        return missed.isEmpty ? 0 : 1
    }
}

extension Cluster {
    /// Runs to the end; nil when everything held.
    func outcome() -> Violation? {
        do {
            try run()
            return nil
        } catch let violation as Violation {
            return violation
        } catch {
            return Violation(.noTrap, "\(error)")
        }
    }
}

/// A line on standard output at once: whoever reads it waits for it, and a trap must not lose it.
func say(_ line: String) {
    var rest = Array((line + "\n").utf8)[...]
    while !rest.isEmpty {
        let count = rest.withUnsafeBytes { write(1, $0.baseAddress, $0.count) }
        guard count > 0 else { exit(3) }
        rest = rest.dropFirst(count)
    }
}
