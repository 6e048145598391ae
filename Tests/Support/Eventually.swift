// SPDX-License-Identifier: Apache-2.0

/// Asks `condition` again and again until it holds.
///
/// - Parameters:
///   - within: the deadline; a condition that holds is reported at once, so a generous one costs nothing.
///   - what: what is waited for, for the failure.
///   - condition: nil or an error means not yet.
/// - Returns: what `condition` gave when it was not nil.
/// - Throws: `TestFailure` naming `what`, with the last error, once the deadline has passed.
@discardableResult
public func eventually<Value>(
    _ what: String, within limit: Duration = .seconds(60), every pause: Duration = .milliseconds(25),
    isolation: isolated (any Actor)? = #isolation, _ condition: () async throws -> Value?
) async throws -> Value {
    let clock = ContinuousClock()
    let deadline = clock.now + limit
    var last = "the condition did not hold"
    repeat {
        do {
            if let value = try await condition() { return value }
        } catch is CancellationError {
            throw CancellationError()
        } catch let error as GiveUp {
            throw error
        } catch {
            last = "\(error)"
        }
        try await clock.sleep(for: pause)
    } while clock.now < deadline
    throw TestFailure("not within \(limit): \(what); \(last)")
}

/// Thrown by a condition that can never hold any more: `eventually` ends at once.
public struct GiveUp: Error, CustomStringConvertible {
    public let description: String
    public init(_ description: String) { self.description = description }
}

/// `eventually` for a plain yes or no.
public func eventually(
    _ what: String, within limit: Duration = .seconds(60), every pause: Duration = .milliseconds(25),
    isolation: isolated (any Actor)? = #isolation, _ condition: () async throws -> Bool
) async throws {
    try await eventually(what, within: limit, every: pause) { try await condition() ? () : nil }
}

/// Holds for the whole of `span`: the counterpart of `eventually` for what must not happen.
public func always(
    _ what: String, for span: Duration, every pause: Duration = .milliseconds(50),
    isolation: isolated (any Actor)? = #isolation, _ condition: () async throws -> Bool
) async throws {
    let clock = ContinuousClock()
    let end = clock.now + span
    while clock.now < end {
        guard try await condition() else { throw TestFailure("does not hold throughout \(span): \(what)") }
        try await clock.sleep(for: pause)
    }
}

/// Repeatable randomness for tests: print the seed, and the run can be had again.
public struct TestRandom: RandomNumberGenerator, Sendable {
    public let seed: UInt64
    private var state: UInt64

    public init(seed: UInt64) {
        self.seed = seed
        state = seed
    }

    /// From `SEED` of the environment, else a fresh one.
    public static func fromEnvironment() -> TestRandom {
        TestRandom(seed: Host.environment("SEED").flatMap { UInt64($0) } ?? UInt64.random(in: 1...UInt64(UInt32.max)))
    }

    // SplitMix64: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014.
    public mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var mixed = state
        mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
        return mixed ^ (mixed >> 31)
    }
}
