// SPDX-License-Identifier: Apache-2.0
import Logging
import Model
import Raft
import Store
import Synchronization
import TestSupport

@testable import Daemon

/// Real cores, each with its threads, log and state, that reach one another without a network.
final class CoreGroup: Sendable {
    final class Node: Sendable {
        let member: MemberID
        let state: StateMachine
        let core: CoreOwner
        private let mark: Mark
        /// What is recorded of its log.
        var hasLog: Bool { mark.value.withLock { $0 } }
        private let tasks: Task<Void, Never>

        fileprivate init(_ member: MemberID, _ group: CoreGroup, founders: [MemberID], hasLog had: Bool) throws {
            self.member = member
            let mark = Mark(had)
            let path = group.directory.path + "/\(member)"
            _ = try group.directory.subdirectory("\(member)")
            state = try StateMachine(
                path: path + "/state.sqlite", initialMembership: Membership(voters: founders))
            core = try CoreOwner(
                node: NodeID("node\(member)"), member: member, state: state, dataDirectory: path, hasLog: had,
                mayObserve: founders.isEmpty, seed: member, logBegun: { mark.value.withLock { $0 = true } },
                log: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() })
            self.mark = mark
            let link = Link(group: group, own: member)
            core.connect(link)
            core.start(
                CoreOwner.Sinks(
                    perform: { _ in }, publish: { _, _ in }, inForce: { _ in }, release: { _ in }, nodes: {},
                    fail: { error in group.failures.withLock { $0.append("\(member): \(error.message)") } }))
            tasks = Task { [core] in
                await withTaskGroup(of: Void.self) { group in
                    group.addTask { await core.forwardOwn() }
                    group.addTask { await core.followLog(over: link) }
                    group.addTask { await core.transfers.send(over: link) }
                    group.addTask { await core.exchangeDigests() }
                }
            }
        }

        func stop() async {
            tasks.cancel()
            core.stop()
            await tasks.value
        }

        func put(_ key: String, _ data: String) async throws {
            _ = try await core.propose(
                .putConfig(
                    PutConfig(config: ObjectKey(namespace: "default", name: key), data: data, condition: .none)),
                deadline: .seconds(20))
        }

        func get(_ key: String) async throws -> String? {
            try await state.read { try $0.config(ObjectKey(namespace: "default", name: key))?.data }
        }
    }

    /// There before the node is.
    fileprivate final class Mark: Sendable {
        let value: Mutex<Bool>
        init(_ value: Bool) { self.value = Mutex(value) }
    }

    /// One node's way to the others.
    private struct Link: PeerLink {
        let group: CoreGroup
        let own: MemberID

        var known: [MemberID] { group.nodes.withLock { $0.keys.sorted() }.filter { $0 != own } }

        func send(_ messages: [Message]) {
            for message in messages { group.reached(message.to, from: own)?.core.consensus.receive([message]) }
        }

        func forward(_ payload: [UInt8], to member: MemberID, deadline: Duration) async throws(PeerError) -> [UInt8] {
            guard let node = group.reached(member, from: own) else {
                throw PeerError(.notConnected, "member \(member) is not there")
            }
            let answer = await node.core.answer(payload, from: own, call: { _ in [] }, node: { _ in [] })
            // It ended while it worked on this.
            guard group.reached(member, from: own) != nil, let answer else {
                throw PeerError(.connectionLost, "member \(member) is gone")
            }
            return answer
        }

        func sendSnapshot(_ source: SnapshotSource, to member: MemberID) async throws -> SnapshotVerdict {
            guard let node = group.reached(member, from: own) else {
                throw PeerError(.notConnected, "member \(member) is not there")
            }
            let reception = try await node.core.transfers.receive(from: own, source.offer)
            var offset = reception.resumeOffset
            while offset < source.offer.bytes {
                let chunk = try await source.read(offset)
                try await reception.write(chunk)
                offset += UInt64(chunk.bytes.count)
            }
            return try await reception.finish()
        }
    }

    let directory: TemporaryDirectory
    let failures = Mutex<[String]>([])
    fileprivate let nodes = Mutex<[MemberID: Node]>([:])
    private let away = Mutex<Set<MemberID>>([])

    init() throws { directory = try TemporaryDirectory() }

    fileprivate func reached(_ member: MemberID, from own: MemberID) -> Node? {
        let isAway = away.withLock { $0.contains(member) || $0.contains(own) }
        return isAway ? nil : nodes.withLock { $0[member] }
    }

    /// - Parameter founders: the members it begins with; none: it comes by a token.
    @discardableResult
    func start(_ member: MemberID, founders: [MemberID] = [], hasLog: Bool = false) throws -> Node {
        let node = try Node(member, self, founders: founders, hasLog: hasLog)
        nodes.withLock { $0[member] = node }
        return node
    }

    func stop(_ member: MemberID) async {
        guard let node = nodes.withLock({ $0.removeValue(forKey: member) }) else { return }
        await node.stop()
    }

    /// Nobody reaches it, and it reaches nobody.
    func cut(_ member: MemberID, _ isCut: Bool = true) {
        away.withLock { away in
            if isCut { away.insert(member) } else { away.remove(member) }
        }
    }

    func end() async {
        for member in nodes.withLock({ $0.keys.sorted() }) { await stop(member) }
        directory.remove()
    }

    func leader() async throws -> Node {
        let found = Mutex<Node?>(nil)
        // Tests beside it may hold all threads of tasks for ten seconds and more.
        try await eventually("a leader", within: .seconds(60)) {
            let leader = nodes.withLock { $0.values.first { $0.core.status.consensus.isReady } }
            found.withLock { $0 = leader }
            return leader != nil
        }
        guard let leader = found.withLock({ $0 }) else { throw TestFailure("no leader") }
        return leader
    }
}

/// Makes a group, hands it to `body` and ends it, also when that throws.
func withCoreGroup(_ body: (CoreGroup) async throws -> Void) async throws {
    let group = try CoreGroup()
    do {
        try await body(group)
    } catch {
        await group.end()
        throw error
    }
    await group.end()
    let failures = group.failures.withLock { $0 }
    if !failures.isEmpty { throw TestFailure(failures.joined(separator: "; ")) }
}
