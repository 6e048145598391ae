// SPDX-License-Identifier: Apache-2.0

internal import Raft

/// Every order in which a small cluster can act: three members, two terms, two entries, one crash.
///
/// Messages may be delivered in any order or never, disks finish when they like, one member loses what was not durable.
/// A depth-first walk that turns back where it has been before. How many messages may be under way is bounded, the oldest
/// is lost to one more: with few the walk comes to an end and has seen everything.
struct Exploration {
    private struct Disk: Hashable {
        var terms: [UInt64] = []
        var hardState = HardState()
    }

    private struct World {
        var nodes: [RaftNode]
        var disks = [Disk](repeating: Disk(), count: 3)
        var queues = [[Write]](repeating: [], count: 3)
        /// In the order of their first sending, without repeats.
        var messages: [Message] = []
        var ticks = [Int](repeating: 0, count: 3)
        var proposals = 0
        var crashes = 0
        /// Who led each term.
        var leaders: [UInt64: MemberID] = [:]
        var committed: [UInt64] = []

        func fingerprint() -> Int {
            var hasher = Hasher()
            for node in nodes { node.hashState(into: &hasher) }
            hasher.combine(disks)
            hasher.combine(queues)
            hasher.combine(Set(messages))
            hasher.combine(ticks)
            hasher.combine(proposals)
            hasher.combine(crashes)
            hasher.combine(leaders)
            hasher.combine(committed)
            return hasher.finalize()
        }
    }

    private enum Action {
        case deliver(Int)
        case tick(Int)
        case persist(Int)
        case propose(Int)
        case crash(Int)
    }

    static let termsMax: UInt64 = 2
    static let entriesMax = 2
    static let crashesMax = 1
    static let ticksMax = 2

    let statesMax: Int
    let messagesMax: Int
    private(set) var states = 0
    private(set) var deepest = 0
    /// The walk ended before it had been everywhere.
    private(set) var isCut = false
    private(set) var commits = 0

    init(statesMax: Int, messagesMax: Int) {
        self.statesMax = statesMax
        self.messagesMax = messagesMax
    }

    private static func makeNode(_ id: MemberID, _ disk: Disk) -> RaftNode {
        var configuration = RaftNode.Configuration(id: id)
        configuration.electionTicks = 1
        configuration.heartbeatTicks = 1_000
        var starts: [LogPosition] = []
        for (place, term) in disk.terms.enumerated() where term != starts.last?.term {
            starts.append(LogPosition(index: UInt64(place) + 1, term: term))
        }
        let last = LogPosition(index: UInt64(disk.terms.count), term: disk.terms.last ?? 0)
        return RaftNode(
            configuration: configuration, hardState: disk.hardState, log: LogExtent(last: last), termStarts: starts,
            appliedIndex: 0,
            configurations: [ConfigurationPoint(index: 0, membership: Membership(voters: [1, 2, 3]))])
    }

    /// - Throws: `Violation`.
    mutating func run() throws {
        var seen: Set<Int> = []
        let start = World(nodes: (1...3).map { Self.makeNode(UInt64($0), Disk()) })
        var path: [(world: World, actions: [Action])] = [(start, actions(start))]
        while !path.isEmpty {
            guard let action = path[path.count - 1].actions.popLast() else {
                path.removeLast()
                continue
            }
            var world = path[path.count - 1].world
            try perform(action, &world)
            guard world.nodes.allSatisfy({ $0.term <= Self.termsMax }), seen.insert(world.fingerprint()).inserted else {
                continue
            }
            states += 1
            commits = max(commits, world.committed.count)
            guard states < statesMax else {
                isCut = true
                return
            }
            path.append((world, actions(world)))
            deepest = max(deepest, path.count)
        }
    }

    private func actions(_ world: World) -> [Action] {
        var actions: [Action] = []
        for place in 0..<3 {
            if world.crashes < Self.crashesMax { actions.append(.crash(place)) }
            if world.ticks[place] < Self.ticksMax { actions.append(.tick(place)) }
            if world.nodes[place].isLeader, world.proposals < Self.entriesMax { actions.append(.propose(place)) }
            if !world.queues[place].isEmpty { actions.append(.persist(place)) }
        }
        return actions + world.messages.indices.map { .deliver($0) }
    }

    private func perform(_ action: Action, _ world: inout World) throws {
        switch action {
        case .deliver(let number):
            let message = world.messages.remove(at: number)
            try step(Int(message.to) - 1, .message(message), &world)
        case .tick(let place):
            world.ticks[place] += 1
            try step(place, .tick, &world)
        case .propose(let place):
            world.proposals += 1
            try step(place, .propose([Proposal(token: UInt64(world.proposals), payload: [1])]), &world)
        case .persist(let place):
            let write = world.queues[place].removeFirst()
            if let state = write.hardState { world.disks[place].hardState = state }
            if let from = write.truncateFrom {
                world.disks[place].terms.removeSubrange(Int(from) - 1..<world.disks[place].terms.count)
            }
            world.disks[place].terms += write.entries.map(\.term)
            for message in write.unlocks { try send(message, &world) }
            try step(place, .persisted(write.receipt), &world)
        case .crash(let place):
            world.crashes += 1
            world.queues[place] = []
            world.nodes[place] = Self.makeNode(UInt64(place) + 1, world.disks[place])
        }
    }

    private func step(_ place: Int, _ input: Input, _ world: inout World) throws {
        let before = world.nodes[place].commitIndex
        let output = world.nodes[place].step(input)
        let node = world.nodes[place]
        if let write = output.write { world.queues[place].append(write) }
        if node.isLeader {
            let other = world.leaders.updateValue(node.id, forKey: node.term)
            if let other, other != node.id { throw Violation(.oneLeader, "\(other) and \(node.id) in \(node.term)") }
        }
        if node.commitIndex > before { try commits(place, &world) }
        for message in output.sends { try send(message, &world) }
    }

    private func commits(_ place: Int, _ world: inout World) throws {
        let node = world.nodes[place]
        var terms = world.disks[place].terms
        for write in world.queues[place] {
            if let from = write.truncateFrom { terms.removeSubrange(Int(from) - 1..<terms.count) }
            terms += write.entries.map(\.term)
        }
        for index in 0..<Int(node.commitIndex) {
            if index < world.committed.count {
                if world.committed[index] != terms[index] {
                    throw Violation(
                        .committedStays, "entry \(index + 1) has terms \(world.committed[index]), \(terms[index])")
                }
                continue
            }
            let holders = world.disks.filter { $0.terms.count > index && $0.terms[index] == terms[index] }
            if holders.count < 2 { throw Violation(.commitOnQuorum, "entry \(index + 1) is held by \(holders.count)") }
            world.committed.append(terms[index])
        }
    }

    private func send(_ message: Message, _ world: inout World) throws {
        let disk = world.disks[Int(message.from) - 1]
        switch message.body {
        case .preVote, .preVoteReply(granted: true): break
        case .voteReply(granted: true) where disk.hardState.term == message.term && disk.hardState.vote != message.to:
            throw Violation(.votesKept, "\(message) with \(disk.hardState) on disk")
        case .appendReply(.accepted(let match)) where disk.terms.count < Int(match):
            throw Violation(.entriesKept, "\(message) with \(disk.terms) on disk")
        default:
            if disk.hardState.term < message.term { throw Violation(.votesKept, "\(message) with \(disk.hardState)") }
        }
        guard !world.messages.contains(message) else { return }
        world.messages.append(message)
        if world.messages.count > messagesMax { world.messages.removeFirst() }
    }
}
