// SPDX-License-Identifier: Apache-2.0
import Model
import Raft
import Store
import Testing

/// A state in memory and a log that writes itself: each call is the next entry, a second later.
final class StateFixture {
    let state: StateMachine
    private(set) var log: [StateMachine.Input] = []
    private(set) var now = Timestamp(milliseconds: 1_700_000_000_000)
    let node = NodeID("node1")

    init(withNode: Bool = true) throws {
        state = try StateMachine(path: nil)
        guard withNode else { return }
        try apply(.putNode(Self.node("node1", subnet: "10.210.0.0/24")))
    }

    @discardableResult
    func apply(_ change: Change, request: String? = nil, after milliseconds: Int64 = 1000) throws -> Applied {
        now = now + milliseconds
        let input = StateMachine.Input(
            index: UInt64(log.count) + 1, term: 1, command: Command(request: request, at: now, change: change))
        log.append(input)
        return try #require(try state.apply([input]).results.first)
    }

    /// The log's next entry names these members.
    func adopt(_ membership: Membership) throws {
        let entry = Entry(
            index: UInt64(log.count) + 1, term: 1, kind: .configuration, payload: membership.encoded())
        let input = try StateMachine.Input(entry)
        log.append(input)
        _ = try state.apply([input])
    }

    func refusal(_ change: Change) throws -> Problem? {
        if case .refused(let problem) = try apply(change).outcome { return problem }
        return nil
    }

    /// Every row of every table as text, in order of the key.
    static func dump(_ state: StateMachine) async throws -> [String] {
        let tables = try await state.query(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name")
        var lines: [String] = []
        for row in tables.rows {
            guard case .text(let name)? = row.first else { continue }
            let columns = try await state.query("SELECT * FROM \(name) LIMIT 0").columns
            let order = columns.map { "\"\($0)\"" }.joined(separator: ", ")
            let content = try await state.query("SELECT * FROM \(name) ORDER BY \(order)")
            lines += content.rows.map { "\(name) \($0)" }
        }
        return lines
    }

    func dump() async throws -> [String] { try await Self.dump(state) }

    // MARK: Specs and changes

    static func node(_ name: String, subnet: String) -> NodeRow {
        NodeRow(
            id: NodeID(name), name: name, member: UInt64(name.utf8.last ?? 1), address: "127.0.0.1",
            subnet: IPv4Subnet(subnet) ?? AddressRanges.standard.containers, cpuMillis: 2000, memoryBytes: 1 << 30,
            version: "test")
    }

    static func service(
        _ name: String, image: String = "web:1", replicas: Int = 1, ports: [PortSpec] = [], volumes: [String] = []
    ) -> ServiceSpec {
        ServiceSpec(
            name: name, image: image, imageDigest: "sha256:\(image)", replicas: replicas,
            mounts: volumes.map { MountSpec(source: .volume($0), target: "/\($0)") }, ports: ports)
    }

    static func put(_ app: String, _ services: [ServiceSpec], _ condition: Precondition = .none) -> Change {
        .putApp(PutApp(spec: AppSpec(key: ObjectKey(name: app), services: services), condition: condition))
    }

    static func port(_ host: UInt16?, _ container: UInt16 = 80) -> PortSpec {
        PortSpec(hostPort: host, containerPort: container)
    }

    // MARK: What a leader and a node would say

    func rollout(_ app: String) throws -> RolloutRow? { try state.read { try $0.rollout(app: ObjectKey(name: app)) } }

    func endRollout(_ app: String, _ outcome: EndRollout.Outcome) throws {
        let id = try #require(try rollout(app)?.id)
        try apply(.endRollout(EndRollout(id: id, outcome: outcome)))
    }

    func fail(_ app: String) throws {
        try endRollout(app, .failed(Reason(.crashLoop, "keeps ending"), task: nil))
    }

    func services(_ app: String) throws -> [ServiceRow] { try state.read { try $0.services(app: app) } }
    func tasks(_ app: String) throws -> [TaskRow] { try state.read { try $0.tasks(app: ObjectKey(name: app)) } }

    /// `service host -> container` of all published ports.
    func ports() throws -> [String] {
        try state.read { try $0.ports() }.map { "\($0.app)/\($0.service) \($0.port.hostPort)" }
    }

    @discardableResult
    func assign(_ app: String, _ service: String, id: String, offset: Int) throws -> Applied {
        let generation = try #require(try services(app).first { $0.name == service }?.generation)
        let subnet = try #require(IPv4Subnet("10.210.0.0/24"))
        return try apply(
            .assignTasks(
                AssignTasks(tasks: [
                    NewTask(
                        id: TaskID(id), app: ObjectKey(name: app), service: service, generation: generation,
                        node: node, address: subnet[offset])
                ])))
    }

    @discardableResult
    func record(_ id: String, _ status: TaskStatus) throws -> Applied {
        try apply(.recordTasks(RecordTasks(reports: [TaskReport(task: TaskID(id), status: status)])))
    }
}
