// SPDX-License-Identifier: Apache-2.0
internal import Raft
internal import Store

/// What a member answers to a node that follows the log without being in its configuration.
///
/// Bytes: outcome u8 (0 entries, 1 compacted, 2 diverged, 3 behind), term u64, leader u64 (0: none), applied index u64; for
/// entries then each as index u64, term u64, kind u8, bytes u32 and its payload. Little-endian.
struct EntryAnswer: Hashable, Sendable {
    enum Outcome: Hashable, Sendable {
        /// What follows the position asked about, all of it applied here; none when nothing came in time.
        case entries([Entry])
        /// The log here begins later: only a snapshot helps.
        case compacted
        /// Another entry stands at the position asked about: what the follower applied is no part of this log, as after a
        /// lost majority was given up. Only a snapshot helps.
        case diverged
        /// This member has not come as far as the follower.
        case behind
    }

    var outcome: Outcome
    /// As the answering member knows them.
    var term: UInt64
    var leader: MemberID?
    var appliedIndex: UInt64

    private static let entryHeaderBytes = 21

    func encoded() -> [UInt8] {
        var writer = ByteWriter()
        let code: UInt8 =
            switch outcome {
            case .entries: 0
            case .compacted: 1
            case .diverged: 2
            case .behind: 3
            }
        writer.put(code)
        writer.put(term)
        writer.put(leader ?? 0)
        writer.put(appliedIndex)
        guard case .entries(let entries) = outcome else { return writer.bytes }
        writer.reserve(entries.reduce(0) { $0 + $1.payload.count + Self.entryHeaderBytes })
        for entry in entries {
            writer.put(entry.index)
            writer.put(entry.term)
            writer.put(entry.kind.rawValue)
            writer.put(UInt32(entry.payload.count))
            writer.put(entry.payload)
        }
        return writer.bytes
    }

    /// Nil for bytes that are no answer to a question about `position`: entries follow it without a gap, terms never fall,
    /// and none lies beyond what the member says it applied.
    init?(decoding bytes: [UInt8], after position: LogPosition) {
        var reader = ByteReader(bytes[...])
        guard let code = reader.take(UInt8.self), let term = reader.take(UInt64.self),
            let leader = reader.take(UInt64.self), let applied = reader.take(UInt64.self)
        else { return nil }
        switch code {
        case 0:
            var entries: [Entry] = []
            var last = position
            while !reader.rest.isEmpty {
                guard let index = reader.take(UInt64.self), let entryTerm = reader.take(UInt64.self),
                    let kind = reader.take(UInt8.self).flatMap({ Entry.Kind(rawValue: $0) }),
                    let count = reader.take(UInt32.self).flatMap({ Int(exactly: $0) }),
                    let payload = reader.take(count: count),
                    last.index < .max, index == last.index + 1, entryTerm >= last.term, index <= applied
                else { return nil }
                let entry = Entry(index: index, term: entryTerm, kind: kind, payload: payload)
                entries.append(entry)
                last = entry.position
            }
            outcome = .entries(entries)
        case 1 where reader.rest.isEmpty: outcome = .compacted
        case 2 where reader.rest.isEmpty: outcome = .diverged
        case 3 where reader.rest.isEmpty: outcome = .behind
        default: return nil
        }
        self.term = term
        self.leader = leader == 0 ? nil : leader
        appliedIndex = applied
    }

    init(_ outcome: Outcome, term: UInt64, leader: MemberID?, appliedIndex: UInt64) {
        self.outcome = outcome
        self.term = term
        self.leader = leader
        self.appliedIndex = appliedIndex
    }
}

/// Entries of this member's log for those who follow it from outside: what is applied here, and so agreed for good.
struct EntryFeed: Sendable {
    /// How long a follower may have an answer kept back until there is something to say.
    static let waitMillisecondsMax: UInt32 = 2_000
    /// Of one answer, unless one entry alone takes more.
    static let answerBytesMax = 1 << 20

    private let writer: LogWriter
    private let proposals: Proposals

    init(writer: LogWriter, proposals: Proposals) {
        self.writer = writer
        self.proposals = proposals
    }

    /// - Parameters:
    ///   - position: what the follower applied last, `.origin` when nothing.
    ///   - waitMilliseconds: cut at `waitMillisecondsMax`.
    /// - Returns: at once when something follows or nothing can, else when something came or the time is over.
    func outcome(after position: LogPosition, waitMilliseconds: UInt32) async -> EntryAnswer.Outcome {
        // One more that waits would be one too many: another member may have room for it.
        guard position.index < .max, !proposals.isFull else { return .behind }
        let here = proposals.applied
        if here.index >= position.index {
            if let refusal = await judge(position) { return refusal }
        } else if here.term > position.term {
            // Terms never fall along a log: this one can never come to hold that position.
            return .diverged
        }
        let deadline = Clock.monotonic() + Int64(min(waitMilliseconds, Self.waitMillisecondsMax))
        guard await proposals.applied(through: position.index + 1, deadline: deadline) else {
            return proposals.appliedIndex < position.index ? .behind : .entries([])
        }
        // The log may have been cut, or begun anew from a snapshot, while this waited.
        if let refusal = await judge(position) { return refusal }
        let applied = proposals.appliedIndex
        guard applied > position.index, let entries = await read(position.index + 1..<applied + 1) else {
            return .compacted
        }
        return .entries(entries)
    }

    /// Nil when the log here holds exactly this position, or begins right after it.
    private func judge(_ position: LogPosition) async -> EntryAnswer.Outcome? {
        let base = writer.picture.extent.base
        if position.index < base.index { return .compacted }
        if position.index == base.index { return position.term == base.term ? nil : .diverged }
        guard let entry = await read(position.index..<position.index + 1)?.first else { return .compacted }
        return entry.term == position.term ? nil : .diverged
    }

    /// Nil when the range is not in the log, or the log cannot be read now.
    private func read(_ range: Range<UInt64>) async -> [Entry]? {
        await withCheckedContinuation { continuation in
            writer.read(range, bytesMax: Self.answerBytesMax) { result in
                switch result {
                case .success(let entries): continuation.resume(returning: entries)
                // A log that fails ends the node through its own report.
                case .failure: continuation.resume(returning: nil)
                }
            }
        }
    }
}
