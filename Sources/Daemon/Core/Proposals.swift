// SPDX-License-Identifier: Apache-2.0
internal import Model
internal import Orchestrator
internal import Raft
internal import Store
internal import Synchronization

/// Everybody who waits for the log: for a proposal to be applied, for an index at which a read is current, for an index to
/// be applied here.
///
/// Everything in it has a deadline; `expire` ends what is over. Called from any thread, held for a few lines.
final class Proposals: Sendable {
    /// How one proposal ended.
    enum Outcome: Sendable {
        case applied(Applied)
        /// It left no trace and may be tried again.
        case refused(Refusal)
        /// Another entry stands where it had its place: it is in no log that counts, and may be tried again.
        case lost
        /// Another member may have taken it and did not say so. Sent again with the same request id it is applied once.
        case unanswered
        /// The time is over and it may still take effect.
        case inDoubt
    }

    /// Where a proposal of another node went.
    enum Placement: Sendable {
        case placed(LogPosition)
        case refused(Refusal)
        /// The answer is lost: taken or not, nobody knows.
        case unanswered
    }

    /// Proposals and reads waiting at once; beyond it new ones are refused as busy.
    static let waitersMax = 20_000
    /// Results of recent entries, for answers of other nodes that come after the entry itself.
    static let recentMax = 16_384

    private struct Waiter {
        var continuation: CheckedContinuation<Outcome, Never>
        var deadline: Int64
    }

    private struct Reader {
        var continuation: CheckedContinuation<UInt64?, Never>
        var deadline: Int64
    }

    private struct IndexWaiter {
        var index: UInt64
        var continuation: CheckedContinuation<Bool, Never>
        var deadline: Int64
    }

    private struct State {
        var nextToken: UInt64 = 1
        var waiters: [UInt64: Waiter] = [:]
        /// Waiters whose proposal has a place in the log.
        var placed: [UInt64: Accepted] = [:]
        var readers: [UInt64: Reader] = [:]
        var indexWaiters: [IndexWaiter] = []
        var transfers: [UInt64: CheckedContinuation<TransferResult.Outcome?, Never>] = [:]
        var positions: [UInt64: CheckedContinuation<Placement, Never>] = [:]
        var applied: UInt64 = 0
        /// Of the newest applied entry.
        var appliedTerm: UInt64 = 0
        /// Ring by the distance from `recentBase`, so that a result is found without searching. Grows with what is applied.
        var recent: [NodeCore.AppliedEntry] = []
        /// The first index recorded.
        var recentBase: UInt64 = 0
        var isClosed = false

        var isFull: Bool { waiters.count + readers.count + indexWaiters.count >= Proposals.waitersMax }

        mutating func token() -> UInt64 {
            defer { nextToken += 1 }
            return nextToken
        }

        func result(at position: LogPosition) -> Outcome? {
            guard position.index <= applied else {
                // Terms never fall along the log: what follows is of this term or a later one.
                return position.term < appliedTerm ? .lost : nil
            }
            guard position.index >= recentBase else { return .inDoubt }
            let slot = Int((position.index - recentBase) % UInt64(Proposals.recentMax))
            guard slot < recent.count, recent[slot].position.index == position.index else { return .inDoubt }
            return Self.outcome(of: recent[slot], for: position)
        }

        /// Entries come in the order of their indexes, which may jump ahead but never go back.
        mutating func record(_ entry: NodeCore.AppliedEntry) {
            if recent.isEmpty { recentBase = entry.position.index }
            let slot = Int((entry.position.index - recentBase) % UInt64(Proposals.recentMax))
            if slot < recent.count {
                recent[slot] = entry
                return
            }
            while recent.count < slot { recent.append(NodeCore.AppliedEntry(position: .origin, result: nil)) }
            recent.append(entry)
        }

        static func outcome(of entry: NodeCore.AppliedEntry, for position: LogPosition) -> Outcome {
            guard entry.position == position, let result = entry.result else { return .lost }
            return .applied(result)
        }
    }

    private let state = Mutex(State())

    var isFull: Bool { state.withLock { $0.isFull } }
    /// Proposals that wait for their result.
    var waiting: Int { state.withLock { $0.waiters.count } }
    var appliedIndex: UInt64 { state.withLock { $0.applied } }
    /// The term may be that of an earlier entry, never of a later one.
    var applied: LogPosition { state.withLock { LogPosition(index: $0.applied, term: $0.appliedTerm) } }

    // MARK: - Waiting

    /// Waits for what becomes of a proposal; `submit` gets its token and hands it in.
    func propose(deadline: Int64, submit: (UInt64) -> Void) async -> Outcome {
        await withCheckedContinuation { continuation in
            let token = state.withLock { state -> UInt64? in
                guard !state.isClosed else { return nil }
                let token = state.token()
                state.waiters[token] = Waiter(continuation: continuation, deadline: deadline)
                return token
            }
            if let token { submit(token) } else { continuation.resume(returning: .inDoubt) }
        }
    }

    /// Waits for the place of a proposal of another node, not for its result.
    func place(submit: (UInt64) -> Void) async -> Placement {
        await withCheckedContinuation { continuation in
            let token = state.withLock { state -> UInt64? in
                guard !state.isClosed else { return nil }
                let token = state.token()
                state.positions[token] = continuation
                return token
            }
            if let token {
                submit(token)
            } else {
                continuation.resume(returning: .refused(.notLeader(leader: nil)))
            }
        }
    }

    /// Waits for the result of an entry that another node has placed.
    func result(at position: LogPosition, deadline: Int64) async -> Outcome {
        await withCheckedContinuation { continuation in
            let known = state.withLock { state -> Outcome? in
                if state.isClosed { return .inDoubt }
                if let known = state.result(at: position) { return known }
                let token = state.token()
                state.waiters[token] = Waiter(continuation: continuation, deadline: deadline)
                if let other = state.placed[position.index] {
                    // Two claims to one place: at most one is right, and the entry's term tells.
                    guard other.position.term < position.term else {
                        state.waiters[token] = nil
                        return .lost
                    }
                    state.waiters.removeValue(forKey: other.token)?.continuation.resume(returning: .lost)
                }
                state.placed[position.index] = Accepted(token: token, position: position)
                return nil
            }
            if let known { continuation.resume(returning: known) }
        }
    }

    /// Waits for the index at which a read is current; nil when nobody could tell.
    func read(deadline: Int64, submit: (UInt64) -> Void) async -> UInt64? {
        await withCheckedContinuation { continuation in
            let token = state.withLock { state -> UInt64? in
                guard !state.isClosed else { return nil }
                let token = state.token()
                state.readers[token] = Reader(continuation: continuation, deadline: deadline)
                return token
            }
            if let token { submit(token) } else { continuation.resume(returning: nil) }
        }
    }

    /// Waits until that index is applied here; false when the time is over.
    func applied(through index: UInt64, deadline: Int64) async -> Bool {
        await withCheckedContinuation { continuation in
            let known = state.withLock { state -> Bool? in
                if state.applied >= index { return true }
                if state.isClosed { return false }
                state.indexWaiters.append(
                    IndexWaiter(index: index, continuation: continuation, deadline: deadline))
                return nil
            }
            if let known { continuation.resume(returning: known) }
        }
    }

    /// Waits for the end of a transfer of leadership; nil when the node stops.
    func transfer(submit: (UInt64) -> Void) async -> TransferResult.Outcome? {
        await withCheckedContinuation { continuation in
            let token = state.withLock { state -> UInt64? in
                // A core that has failed answers nothing any more; waiting for it would keep the daemon from ending.
                guard !state.isClosed else { return nil }
                let token = state.token()
                state.transfers[token] = continuation
                return token
            }
            if let token { submit(token) } else { continuation.resume(returning: nil) }
        }
    }

    // MARK: - News

    func accepted(_ accepted: [Accepted]) {
        state.withLock { state in
            for accepted in accepted {
                if let position = state.positions.removeValue(forKey: accepted.token) {
                    position.resume(returning: .placed(accepted.position))
                } else if state.waiters[accepted.token] != nil {
                    if let other = state.placed[accepted.position.index] {
                        state.waiters.removeValue(forKey: other.token)?.continuation.resume(returning: .lost)
                    }
                    state.placed[accepted.position.index] = accepted
                }
            }
        }
    }

    func refused(_ refused: [Raft.Refused]) {
        state.withLock { state in
            for refused in refused {
                if let position = state.positions.removeValue(forKey: refused.token) {
                    position.resume(returning: .refused(refused.reason))
                } else {
                    state.waiters.removeValue(forKey: refused.token)?.continuation
                        .resume(returning: .refused(refused.reason))
                }
            }
        }
    }

    func read(_ results: [ReadResult]) {
        state.withLock { state in
            for result in results {
                state.readers.removeValue(forKey: result.token)?.continuation.resume(returning: result.index)
            }
        }
    }

    func transferred(_ results: [TransferResult]) {
        state.withLock { state in
            for result in results {
                state.transfers.removeValue(forKey: result.token)?.resume(returning: result.outcome)
            }
        }
    }

    func applied(_ entries: [NodeCore.AppliedEntry]) {
        guard let last = entries.last else { return }
        state.withLock { state in
            for entry in entries {
                if entry.position.term > state.appliedTerm {
                    state.appliedTerm = entry.position.term
                    Self.endLost(&state)
                }
                state.record(entry)
                guard let accepted = state.placed.removeValue(forKey: entry.position.index) else { continue }
                state.waiters.removeValue(forKey: accepted.token)?.continuation
                    .resume(returning: State.outcome(of: entry, for: accepted.position))
            }
            Self.reached(last.position.index, &state)
        }
    }

    /// The state was replaced by a snapshot of this index: what happened to the entries before is not known.
    /// - Parameter isOtherHistory: what was applied here beyond it never was, as far as the others know.
    func replaced(through index: UInt64, isOtherHistory: Bool = false) {
        state.withLock { state in
            if isOtherHistory {
                state.applied = index
                state.appliedTerm = 0
            }
            // What comes next lies beyond a gap.
            if isOtherHistory || index > state.applied { state.recent = [] }
            for (place, accepted) in state.placed where place <= index || isOtherHistory {
                state.placed[place] = nil
                state.waiters.removeValue(forKey: accepted.token)?.continuation.resume(returning: .inDoubt)
            }
            Self.reached(index, &state)
        }
    }

    /// Another leader's log goes on where these wait for entries of an earlier one: those never come. Without it they would
    /// wait until as many others came, or for their deadlines.
    private static func endLost(_ state: inout State) {
        for (place, accepted) in state.placed
        where place > state.applied && accepted.position.term < state.appliedTerm {
            state.placed[place] = nil
            state.waiters.removeValue(forKey: accepted.token)?.continuation.resume(returning: .lost)
        }
    }

    private static func reached(_ index: UInt64, _ state: inout State) {
        state.applied = max(state.applied, index)
        guard !state.indexWaiters.isEmpty else { return }
        let applied = state.applied
        state.indexWaiters.removeAll { waiter in
            guard waiter.index <= applied else { return false }
            waiter.continuation.resume(returning: true)
            return true
        }
    }

    /// Ends what has waited too long.
    func expire(now: Int64) {
        state.withLock { state in
            for (token, waiter) in state.waiters where waiter.deadline <= now {
                state.waiters[token] = nil
                waiter.continuation.resume(returning: .inDoubt)
            }
            for (place, accepted) in state.placed where state.waiters[accepted.token] == nil {
                state.placed[place] = nil
            }
            for (token, reader) in state.readers where reader.deadline <= now {
                state.readers[token] = nil
                reader.continuation.resume(returning: nil)
            }
            state.indexWaiters.removeAll { waiter in
                guard waiter.deadline <= now else { return false }
                waiter.continuation.resume(returning: false)
                return true
            }
        }
    }

    /// The node stops: nobody is left waiting.
    func close() {
        state.withLock { state in
            state.isClosed = true
            for waiter in state.waiters.values { waiter.continuation.resume(returning: .inDoubt) }
            for reader in state.readers.values { reader.continuation.resume(returning: nil) }
            for waiter in state.indexWaiters { waiter.continuation.resume(returning: false) }
            for transfer in state.transfers.values { transfer.resume(returning: nil) }
            for position in state.positions.values {
                position.resume(returning: .refused(.notLeader(leader: nil)))
            }
            state.waiters = [:]
            state.placed = [:]
            state.readers = [:]
            state.indexWaiters = []
            state.transfers = [:]
            state.positions = [:]
        }
    }
}
