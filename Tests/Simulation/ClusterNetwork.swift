// SPDX-License-Identifier: Apache-2.0

internal import Raft
internal import TestSupport

// Messages and snapshots between members, and what keeps them from arriving.
extension Cluster {
    func isBlocked(_ from: MemberID, _ to: MemberID) -> Bool {
        guard let sender = members[from], let receiver = members[to] else { return true }
        return blocked[sender.slot * Self.slotsMax + receiver.slot]
    }

    func send(_ message: Message, from member: Member) throws {
        try checker.sends(message, member)
        guard let receiver = members[message.to], !perMille(isHealing ? 0 : options.dropPerMille) else { return }
        let copies = perMille(isHealing ? 0 : options.duplicatePerMille) ? 2 : 1
        for _ in 0..<copies {
            var wait = delay(options.delay)
            if !isHealing, perMille(options.tailPerMille) { wait += delay(options.tail) }
            let clogged = cloggedUntil[member.slot * Self.slotsMax + receiver.slot]
            if clogged > now { wait += clogged - now }
            plan(.deliver(message), after: wait)
        }
    }

    func deliver(_ message: Message) throws {
        guard let receiver = members[message.to], receiver.isUp, !isBlocked(message.from, message.to) else { return }
        note("\(message.from) -> \(message.to) term \(message.term) \(describe(message.body))")
        feed(receiver, .message(message))
    }

    private func describe(_ body: Message.Body) -> String {
        guard case .append(let append) = body else { return "\(body)" }
        let entries = append.entries.map { "\($0.index):\($0.term)" }.joined(separator: " ")
        return "append after \(append.previous) [\(entries)] commit \(append.commit)"
    }

    // MARK: - Partitions

    func setBlocked(_ from: Member, _ to: Member) { blocked[from.slot * Self.slotsMax + to.slot] = true }

    func partitionNetwork() {
        partition += 1
        isPartitioned = true
        blocked = [Bool](repeating: false, count: blocked.count)
        let order = roster.filter { $0.fate == .present }.shuffled(using: &random)
        let style = Int.random(in: 0..<6, using: &random)
        func cut(_ one: Member, _ other: Member) {
            setBlocked(one, other)
            setBlocked(other, one)
        }
        switch style {
        case 0:
            // Halves.
            let middle = Int.random(in: 0...order.count, using: &random)
            for one in order[..<middle] { for other in order[middle...] { cut(one, other) } }
        case 1:
            // One way: some are heard but hear nothing, or the other way round.
            let middle = Int.random(in: 0...order.count, using: &random)
            for one in order[..<middle] { for other in order[middle...] { setBlocked(one, other) } }
        case 2:
            // A bridge: two halves that share one member.
            let middle = order.count / 2
            for (place, one) in order.enumerated() where place < middle {
                for (other, second) in order.enumerated() where other > middle { cut(one, second) }
            }
        case 3:
            // A ring: each sees its two neighbours.
            for (place, one) in order.enumerated() {
                for (other, second) in order.enumerated() where other > place + 1 {
                    if !(place == 0 && other == order.count - 1) { cut(one, second) }
                }
            }
        case 4:
            // One alone.
            if let one = order.first { for other in order.dropFirst() { cut(one, other) } }
        default:
            // Single links.
            for one in order { for other in order where one !== other && random.oneIn(3) { setBlocked(one, other) } }
        }
        note("network parts, style \(style): \(order.map(\.id))")
        plan(.heal(partition: partition), after: delay(options.faultPause * 2))
    }

    func healNetwork() {
        partition += 1
        isPartitioned = false
        blocked = [Bool](repeating: false, count: blocked.count)
        note("network is whole")
    }

    // MARK: - Snapshots

    func beginStream(from member: Member, to target: MemberID, term: UInt64) throws {
        guard let receiver = members[target] else { return }
        let state = try putAside(member).snapshot()
        note("\(member.id) sends \(target) a snapshot of \(state.applied)")
        streams.append(
            Stream(
                from: member.id, fromLife: member.life, to: target, toLife: receiver.life, term: term, meta: state.meta,
                state: state, chunks: Int.random(in: 1...4, using: &random)))
        plan(.chunk(stream: streams.count - 1), after: delay(options.delay * 2))
        plan(.stall(stream: streams.count - 1), after: 3_000_000)
    }

    func deliverChunk(_ number: Int) {
        let stream = streams[number]
        guard !stream.isOver, let sender = members[stream.from], let receiver = members[stream.to], sender.isUp,
            sender.life == stream.fromLife, receiver.isUp
        else { return }
        if isBlocked(stream.from, stream.to) || perMille(isHealing ? 0 : options.dropPerMille) {
            streams[number].retries += 1
            if stream.retries > 3 { return endStream(number, succeeded: false) }
            return plan(.chunk(stream: number), after: delay(options.delay * 10))
        }
        streams[number].chunks -= 1
        if streams[number].chunks > 0 { return plan(.chunk(stream: number), after: delay(options.delay * 2)) }
        receiver.snapshots[stream.meta] = stream.state
        feed(
            receiver,
            .snapshotReceived(
                from: stream.from, term: stream.term, stream.meta, replacesState: receiver.isStateWrong))
    }

    /// A member installed this snapshot, or holds more already: whoever sent it is told.
    func snapshotTaken(_ meta: SnapshotMeta, by member: Member) {
        for number in streams.indices where streams[number].to == member.id && streams[number].meta == meta {
            if !streams[number].isOver, streams[number].chunks == 0 { endStream(number, succeeded: true) }
        }
    }

    func endStream(_ number: Int, succeeded: Bool) {
        let stream = streams[number]
        guard !stream.isOver else { return }
        streams[number].isOver = true
        streams[number].state = ModelState(configuration: checker.membership)
        guard let sender = members[stream.from], sender.isUp, sender.life == stream.fromLife else { return }
        feed(sender, .snapshotSent(to: stream.to, stream.meta, succeeded: succeeded))
    }
}
