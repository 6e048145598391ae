// SPDX-License-Identifier: Apache-2.0
internal import Raft

/// What one member asks of another beside Raft's own messages. Bytes: kind u8, then what the kind needs, little-endian.
enum PeerRequest: Hashable, Sendable {
    /// Take this command, if you lead, and say where it stands.
    case propose([UInt8])
    /// Where do the members stand? Answered by the leader, others answer with nothing.
    case progress
    /// Hand leadership on; nil lets the leader choose.
    case transfer(to: MemberID?)
    /// What the sender's whole state was at this index, 32 bytes.
    case digest(index: UInt64, [UInt8])
    /// Send me a snapshot: of a member, whose state is wrong, if you lead; of an observer, which lacks what the log no
    /// longer holds. Answered with one byte, 1 when it will come.
    case snapshot
    /// A `LeaderCall`, JSON.
    case call([UInt8])
    /// A `NodeCall`, JSON.
    case node([UInt8])
    /// What follows this position in the log, for a node outside of its configuration; the answer may wait so long.
    case entries(after: LogPosition, waitMilliseconds: UInt32)
    /// At which index is a read current now? Answered with a u64, or with nothing when nobody can tell.
    case current
    /// What was your whole state at this index? Answered with 32 bytes, or with nothing when that is not known.
    case digestOf(index: UInt64)

    func encoded() -> [UInt8] {
        var writer = ByteWriter()
        switch self {
        case .propose(let payload):
            writer.reserve(payload.count + 1)
            writer.put(UInt8(1))
            writer.put(payload)
        case .progress: writer.put(UInt8(2))
        case .transfer(let target):
            writer.put(UInt8(3))
            writer.put(target ?? 0)
        case .digest(let index, let digest):
            writer.put(UInt8(4))
            writer.put(index)
            writer.put(digest)
        case .snapshot: writer.put(UInt8(5))
        case .call(let body):
            writer.put(UInt8(6))
            writer.put(body)
        case .node(let body):
            writer.put(UInt8(9))
            writer.put(body)
        case .entries(let position, let milliseconds):
            writer.put(UInt8(7))
            writer.put(position.index)
            writer.put(position.term)
            writer.put(milliseconds)
        case .current: writer.put(UInt8(8))
        case .digestOf(let index):
            writer.put(UInt8(10))
            writer.put(index)
        }
        return writer.bytes
    }

    /// Nil for bytes that are no request this build knows.
    init?(decoding bytes: [UInt8]) {
        var reader = ByteReader(bytes[...])
        switch reader.take(UInt8.self) {
        case 1: self = .propose(Array(reader.rest))
        case 2 where reader.rest.isEmpty: self = .progress
        case 3:
            guard let target = reader.take(UInt64.self), reader.rest.isEmpty else { return nil }
            self = .transfer(to: target == 0 ? nil : target)
        case 4:
            guard let index = reader.take(UInt64.self), reader.rest.count == 32 else { return nil }
            self = .digest(index: index, Array(reader.rest))
        case 5 where reader.rest.isEmpty: self = .snapshot
        case 6: self = .call(Array(reader.rest))
        case 9: self = .node(Array(reader.rest))
        case 7:
            guard let index = reader.take(UInt64.self), let term = reader.take(UInt64.self),
                let milliseconds = reader.take(UInt32.self), reader.rest.isEmpty
            else { return nil }
            self = .entries(after: LogPosition(index: index, term: term), waitMilliseconds: milliseconds)
        case 8 where reader.rest.isEmpty: self = .current
        case 10:
            guard let index = reader.take(UInt64.self), reader.rest.isEmpty else { return nil }
            self = .digestOf(index: index)
        default: return nil
        }
    }
}

/// Answers to `PeerRequest`. Decoders give nil for bytes that are no answer this build knows.
enum PeerReply {
    // MARK: - Where a command stands: u8 0, index u64, term u64; or u8 code of the refusal and its numbers.

    static func encode(_ placement: Proposals.Placement) -> [UInt8] {
        var writer = ByteWriter()
        switch placement {
        case .placed(let position):
            writer.put(UInt8(0))
            writer.put(position.index)
            writer.put(position.term)
        case .refused(.notLeader), .refused(.membership), .unanswered: writer.put(UInt8(1))
        case .refused(.transferring): writer.put(UInt8(2))
        case .refused(.busyBytes(let limit)):
            writer.put(UInt8(3))
            writer.put(Int64(limit))
        case .refused(.busyEntries(let limit)):
            writer.put(UInt8(4))
            writer.put(Int64(limit))
        case .refused(.tooLarge(let bytes, let limit)):
            writer.put(UInt8(5))
            writer.put(Int64(bytes))
            writer.put(Int64(limit))
        }
        return writer.bytes
    }

    static func placement(_ bytes: [UInt8]) -> Proposals.Placement? {
        var reader = ByteReader(bytes[...])
        func number() -> Int? { reader.take(Int64.self).flatMap { Int(exactly: $0) } }
        switch reader.take(UInt8.self) {
        case 0:
            guard let index = reader.take(UInt64.self), let term = reader.take(UInt64.self) else { return nil }
            return .placed(LogPosition(index: index, term: term))
        case 1: return .refused(.notLeader(leader: nil))
        case 2: return .refused(.transferring(to: 0))
        case 3: return number().map { .refused(.busyBytes(limit: $0)) }
        case 4: return number().map { .refused(.busyEntries(limit: $0)) }
        case 5:
            guard let bytes = number(), let limit = number() else { return nil }
            return .refused(.tooLarge(bytes: bytes, limit: limit))
        default: return nil
        }
    }

    // MARK: - Members: for each id u64, match u64, silent ticks u32, flags u8 (1 voter, 2 needs a snapshot).

    static func encode(_ progress: [MemberProgress]) -> [UInt8] {
        var writer = ByteWriter()
        for member in progress {
            writer.put(member.id)
            writer.put(member.match)
            writer.put(UInt32(clamping: member.silentTicks))
            writer.put(UInt8(member.isVoter ? 1 : 0) | UInt8(member.needsSnapshot ? 2 : 0))
        }
        return writer.bytes
    }

    static func progress(_ bytes: [UInt8]) -> [MemberProgress]? {
        var reader = ByteReader(bytes[...])
        var members: [MemberProgress] = []
        while !reader.rest.isEmpty {
            guard members.count < Membership.membersMax, let id = reader.take(UInt64.self),
                let match = reader.take(UInt64.self), let ticks = reader.take(UInt32.self),
                let flags = reader.take(UInt8.self)
            else { return nil }
            members.append(
                MemberProgress(
                    id: id, isVoter: flags & 1 != 0, match: match, silentTicks: Int(ticks),
                    needsSnapshot: flags & 2 != 0))
        }
        return members
    }

    // MARK: - An index for a read: u64, or nothing.

    static func encode(current index: UInt64?) -> [UInt8] {
        var writer = ByteWriter()
        if let index { writer.put(index) }
        return writer.bytes
    }

    static func current(_ bytes: [UInt8]) -> UInt64? {
        var reader = ByteReader(bytes[...])
        guard let index = reader.take(UInt64.self), reader.rest.isEmpty else { return nil }
        return index
    }

    // MARK: - Transfer: u8 0 done, 1 does not lead, 2 no target, 3 timed out, 4 the node stops; then member u64.

    static func encode(_ outcome: TransferResult.Outcome?) -> [UInt8] {
        var writer = ByteWriter()
        let (code, member): (UInt8, MemberID) =
            switch outcome {
            case .transferred(let member): (0, member)
            case .notLeader: (1, 0)
            case .noTarget: (2, 0)
            case .timedOut(let member): (3, member)
            case nil: (4, 0)
            }
        writer.put(code)
        writer.put(member)
        return writer.bytes
    }

    static func transfer(_ bytes: [UInt8]) -> TransferResult.Outcome? {
        var reader = ByteReader(bytes[...])
        guard let code = reader.take(UInt8.self), let member = reader.take(UInt64.self) else { return nil }
        switch code {
        case 0: return .transferred(to: member)
        case 1: return .notLeader(leader: nil)
        case 2: return .noTarget
        case 3: return .timedOut(member)
        default: return nil
        }
    }
}
