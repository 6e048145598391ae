// SPDX-License-Identifier: Apache-2.0

internal import Raft

/// A few cores driven by commands of a text file; nothing happens that no command asks for.
///
/// Lines that begin with `>` are commands, what follows each is what it printed, `#` begins a comment. Commands:
/// `appends ENTRIES` (before all others: most entries of one append), `cluster N [LEARNERS]`, `log A TERMS…` (before
/// anything happens: its durable log), `tick A [N]`, `elect A` (ticks until it stands), `settle` (delivers and persists
/// until nothing is left), `deliver FROM TO [N]`, `drop FROM TO`, `show` (messages under way), `cut A B`, `isolate A`,
/// `heal`, `hold A` and `release A` (its disk), `persist A [N]` (one write, and the core is told), `flush A` (one write, and
/// what it unlocks leaves) and `receipts A` (now the core is told), `propose A`, `read A`, `transfer A [B]`,
/// `add|promote|demote|remove B at A`, `crash A`, `apply A`, `compact A INDEX`, `install FROM TO`, `logs`.
final class Scenario {
    private struct Member {
        var node: RaftNode
        var entries: [Entry] = []
        var base = LogPosition.origin
        var hardState = HardState()
        var queue: [Write] = []
        /// Of writes that are done, not yet taken by the core.
        var receipts: [Receipt] = []
        var isHeld = false
        var applied: UInt64 = 0
        var handedOut: UInt64 = 0
        var configuration: ConfigurationPoint
        var commit: UInt64 = 0
    }

    struct Failure: Error, CustomStringConvertible {
        var description: String
    }

    private var members: [MemberID: Member] = [:]
    private var founding = ConfigurationPoint(index: 0, membership: Membership(voters: [1]))
    private var messages: [Message] = []
    private var cuts: Set<[MemberID]> = []
    private var output: [String] = []
    private var token: UInt64 = 0
    private var appendBytesMax = 1 << 20

    /// - Returns: the text with each command's output as it is now.
    static func run(_ text: String) throws -> String {
        let scenario = Scenario()
        var lines: [String] = []
        for line in text.split(separator: "\n", omittingEmptySubsequences: false) {
            if line.hasPrefix("> ") {
                lines.append(String(line))
                scenario.output = []
                try scenario.perform(line.dropFirst(2).split(separator: " ").map(String.init))
                lines += scenario.output.map { "  " + $0 }
            } else if line.isEmpty || line.hasPrefix("#") {
                lines.append(String(line))
            }
        }
        return lines.joined(separator: "\n")
    }

    private func say(_ line: String) { output.append(line) }

    private var ids: [MemberID] { members.keys.sorted() }

    private func perform(_ words: [String]) throws {
        guard let verb = words.first else { throw Failure(description: "empty command") }
        let numbers = words.dropFirst().compactMap { UInt64($0) }
        func number(_ place: Int) throws -> UInt64 {
            guard numbers.count > place else { throw Failure(description: "too few numbers: \(words)") }
            return numbers[place]
        }
        switch verb {
        case "appends":
            // All entries of a scenario are about as large as one of a byte.
            appendBytesMax = Int(try number(0)) * Entry(index: 1, term: 1, kind: .command, payload: [1]).footprintBytes
        case "cluster":
            let voters = Array(1...(try number(0)))
            let learners = numbers.count > 1 ? (1...numbers[1]).map { $0 + (numbers[0]) } : []
            founding = ConfigurationPoint(index: 0, membership: Membership(voters: voters, learners: learners))
            for id in voters + learners { start(id, entries: [], HardState()) }
        case "join": start(try number(0), entries: [], HardState())
        case "log":
            var entries: [Entry] = []
            for term in numbers.dropFirst() {
                entries.append(Entry(index: UInt64(entries.count) + 1, term: term, kind: .command, payload: [1]))
            }
            start(try number(0), entries: entries, HardState(term: entries.last?.term ?? 0))
        case "tick":
            for _ in 0..<(numbers.count > 1 ? numbers[1] : 1) { try step(try number(0), .tick) }
        case "elect":
            let id = try number(0)
            for _ in 0..<40 where members[id]?.node.role == .follower { try step(id, .tick) }
        case "settle": try settle()
        case "deliver":
            let count = numbers.count > 2 ? Int(numbers[2]) : Int.max
            try deliver(try number(0), try number(1), count)
        case "drop":
            let from = try number(0), to = try number(1)
            messages.removeAll { $0.from == from && $0.to == to }
        case "show": for message in messages { say(describe(message)) }
        case "cut": cut(try number(0), try number(1))
        case "isolate":
            let id = try number(0)
            for other in ids where other != id { cut(id, other) }
        case "heal": cuts = []
        case "hold": members[try number(0)]?.isHeld = true
        case "release": members[try number(0)]?.isHeld = false
        case "persist":
            for _ in 0..<(numbers.count > 1 ? numbers[1] : 1) { try persist(try number(0)) }
        case "flush": flush(try number(0))
        case "receipts": try takeReceipts(try number(0))
        case "propose":
            token += 1
            try step(try number(0), .propose([Proposal(token: token, payload: [UInt8(truncatingIfNeeded: token)])]))
        case "read":
            token += 1
            try step(try number(0), .read(token: token))
        case "transfer":
            token += 1
            try step(try number(0), .transfer(token: token, to: numbers.count > 1 ? numbers[1] : nil))
        case "add", "promote", "demote", "remove":
            token += 1
            let target = try number(0)
            let change: MembershipChange =
                switch verb {
                case "add": .addLearner(target)
                case "promote": .promote(target)
                case "demote": .demote(target)
                default: .remove(target)
                }
            try step(try number(1), .changeMembership(token: token, change))
        case "crash": try crash(try number(0))
        case "apply": try apply(try number(0))
        case "compact":
            let id = try number(0), index = try number(1)
            guard let member = members[id], let entry = member.entries.first(where: { $0.index == index }) else {
                throw Failure(description: "\(id) has no entry \(index)")
            }
            members[id]?.base = entry.position
            members[id]?.entries.removeAll { $0.index <= index }
            try step(id, .compact(through: index))
        case "install": try install(try number(0), try number(1))
        case "logs": for id in ids { say(standing(id)) }
        default: throw Failure(description: "unknown command `\(verb)`")
        }
    }

    // MARK: - Members

    private func start(_ id: MemberID, entries: [Entry], _ hardState: HardState) {
        var member = Member(
            node: makeNode(id, entries, .origin, hardState, 0, founding), configuration: founding)
        member.entries = entries
        member.hardState = hardState
        members[id] = member
    }

    private func makeNode(
        _ id: MemberID, _ entries: [Entry], _ base: LogPosition, _ hardState: HardState, _ applied: UInt64,
        _ configuration: ConfigurationPoint
    ) -> RaftNode {
        var settings = RaftNode.Configuration(id: id)
        settings.electionTicks = 10
        settings.heartbeatTicks = 1
        settings.appendBytesMax = appendBytesMax
        var starts: [LogPosition] = []
        for entry in entries where entry.term != starts.last?.term ?? base.term { starts.append(entry.position) }
        let later = entries.compactMap { entry -> ConfigurationPoint? in
            guard entry.kind == .configuration, entry.index > configuration.index else { return nil }
            return Membership(decoding: entry.payload).map { ConfigurationPoint(index: entry.index, membership: $0) }
        }
        return RaftNode(
            configuration: settings, hardState: hardState,
            log: LogExtent(base: base, last: entries.last?.position ?? base), termStarts: starts,
            appliedIndex: applied, configurations: [configuration] + later)
    }

    private func crash(_ id: MemberID) throws {
        guard let member = members[id] else { throw Failure(description: "no member \(id)") }
        members[id]?.queue = []
        members[id]?.receipts = []
        members[id]?.isHeld = false
        members[id]?.handedOut = member.applied
        let node = makeNode(
            id, member.entries, member.base, member.hardState, member.applied, member.configuration)
        members[id]?.node = node
        members[id]?.commit = node.commitIndex
    }

    private func apply(_ id: MemberID) throws {
        guard let member = members[id], member.handedOut > member.applied else { return }
        members[id]?.applied = member.handedOut
        for entry in member.entries where entry.kind == .configuration && entry.index <= member.handedOut {
            if let membership = Membership(decoding: entry.payload) {
                members[id]?.configuration = ConfigurationPoint(index: entry.index, membership: membership)
            }
        }
        try step(id, .applied(member.handedOut))
    }

    private func install(_ from: MemberID, _ to: MemberID) throws {
        guard let sender = members[from],
            let term = sender.entries.first(where: { $0.index == sender.applied })?.term
                ?? (sender.applied == sender.base.index ? sender.base.term : nil)
        else { throw Failure(description: "\(from) has applied nothing") }
        let meta = SnapshotMeta(
            position: LogPosition(index: sender.applied, term: term), configuration: sender.configuration)
        let answer = try step(
            to, .snapshotReceived(from: from, term: sender.node.term, meta, replacesState: false))
        if let install = answer.install {
            say("\(to) installs \(meta.position)\(install.keepsLog ? " and keeps its log" : "")")
            if !install.keepsLog {
                members[to]?.entries = []
                members[to]?.base = meta.position
            }
            members[to]?.applied = meta.position.index
            members[to]?.handedOut = meta.position.index
            members[to]?.configuration = meta.configuration
            try step(to, .installed(install))
        }
        try step(from, .snapshotSent(to: to, meta, succeeded: true))
    }

    // MARK: - Messages and disks

    private func cut(_ one: MemberID, _ other: MemberID) {
        cuts.insert([one, other])
        cuts.insert([other, one])
    }

    private func deliver(_ from: MemberID, _ to: MemberID, _ count: Int) throws {
        let chosen = messages.enumerated().filter { $0.element.from == from && $0.element.to == to }.prefix(count)
        for place in chosen.map(\.offset).reversed() { messages.remove(at: place) }
        for message in chosen.map(\.element) {
            say(describe(message))
            try step(to, .message(message))
        }
    }

    private func persist(_ id: MemberID) throws {
        guard members[id]?.queue.isEmpty == false else { return }
        flush(id)
        try takeReceipts(id)
    }

    private func flush(_ id: MemberID) {
        guard let write = members[id]?.queue.first else { return }
        members[id]?.queue.removeFirst()
        if let state = write.hardState { members[id]?.hardState = state }
        if let from = write.truncateFrom { members[id]?.entries.removeAll { $0.index >= from } }
        members[id]?.entries += write.entries
        members[id]?.receipts.append(write.receipt)
        send(write.unlocks)
    }

    private func takeReceipts(_ id: MemberID) throws {
        while let receipt = members[id]?.receipts.first {
            members[id]?.receipts.removeFirst()
            try step(id, .persisted(receipt))
        }
    }

    private func send(_ sent: [Message]) {
        messages += sent.filter { members[$0.to] != nil && !cuts.contains([$0.from, $0.to]) }
    }

    private func settle() throws {
        for _ in 0..<10_000 {
            if let id = ids.first(where: { members[$0]?.isHeld == false && members[$0]?.queue.isEmpty == false }) {
                try persist(id)
            } else if !messages.isEmpty {
                let message = messages.removeFirst()
                if !cuts.contains([message.from, message.to]) { try step(message.to, .message(message)) }
            } else if let id = ids.first(where: { (members[$0]?.handedOut ?? 0) > (members[$0]?.applied ?? 0) }) {
                try apply(id)
            } else {
                return
            }
        }
        throw Failure(description: "it never settles")
    }

    @discardableResult
    private func step(_ id: MemberID, _ input: Input) throws -> Output {
        guard var node = members[id]?.node else { throw Failure(description: "no member \(id)") }
        let answer = node.step(input)
        members[id]?.node = node
        if let change = answer.roleChange {
            let role =
                switch change.role {
                case .follower: change.leader.map { "follows \($0)" } ?? "follows nobody"
                case .preCandidate: "asks for votes"
                case .candidate: "stands"
                case .leader: change.isReady ? "leads and is ready" : "leads"
                }
            say("\(id) \(role) in term \(change.term)")
        }
        if let point = answer.membership {
            let membership = point.membership
            say(
                "\(id) has voters \(membership.voters)"
                    + (membership.learners.isEmpty ? "" : " learners \(membership.learners)"))
        }
        if node.commitIndex > members[id]?.commit ?? 0 {
            say("\(id) knows \(node.commitIndex) committed")
            members[id]?.commit = node.commitIndex
        }
        for refused in answer.refused { say("\(id) refuses: \(refused.reason)".replacing("Raft.", with: "")) }
        for read in answer.reads { say("\(id) reads at \(read.index.map { "\($0)" } ?? "no index")") }
        for transfer in answer.transfers {
            say("\(id) transfer: \(transfer.outcome)".replacing("Raft.", with: ""))
        }
        for target in answer.snapshots { say("\(id) wants a snapshot sent to \(target)") }
        if let committed = answer.committed { members[id]?.handedOut = committed.indexes.upperBound - 1 }
        if let write = answer.write { members[id]?.queue.append(write) }
        send(answer.sends)
        for load in answer.loads {
            let entries = members[id]?.entries.filter { load.range.contains($0.index) } ?? []
            try step(id, .loaded(for: load.member, entries: entries.isEmpty ? nil : entries))
        }
        return answer
    }

    // MARK: - Words

    private func describe(_ message: Message) -> String {
        let body =
            switch message.body {
            case .preVote(let last): "may I stand? log ends at \(last)"
            case .preVoteReply(let granted): granted ? "you may" : "you may not"
            case .vote(let last, let isTransfer): "vote for me, log ends at \(last)\(isTransfer ? ", as told" : "")"
            case .voteReply(let granted): granted ? "my vote" : "no vote"
            case .append(let append):
                "after \(append.previous) [\(append.entries.map { "\($0.index):\($0.term)" }.joined(separator: " "))] "
                    + "commit \(append.commit)"
            case .appendReply(.accepted(let match)): "I have \(match)"
            case .appendReply(.rejected(let previous, let hint)): "I lack \(previous), maybe \(hint)"
            case .heartbeat(let beat): "heartbeat \(beat.round) commit \(beat.commit)"
            case .heartbeatReply(let round): "heard \(round)"
            case .commit(let index): "commit \(index)"
            case .timeoutNow: "stand now"
            case .readIndex: "where may I read?"
            case .readIndexReply(_, let index): "read at \(index.map { "\($0)" } ?? "nothing")"
            }
        return "\(message.from) -> \(message.to) term \(message.term): \(body)"
    }

    private func standing(_ id: MemberID) -> String {
        guard let member = members[id] else { return "" }
        let terms = member.entries.map { "\($0.term)" }.joined(separator: " ")
        let base = member.base.index == 0 ? "" : "after \(member.base.index) "
        return "\(id) term \(member.node.term) commit \(member.node.commitIndex) on disk \(base)[\(terms)]"
    }
}
