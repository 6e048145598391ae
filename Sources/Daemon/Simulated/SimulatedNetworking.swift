// SPDX-License-Identifier: Apache-2.0
internal import Model
internal import Synchronization

/// A network that only remembers: which task has which address, and the last balancing table.
final class SimulatedNetworking: Networking {
    private struct State {
        var faults = Faults()
        var node: NodeNetwork?
        var remotes: [RemoteNode] = []
        var attachments: [TaskID: IPv4Address] = [:]
        var table = BalancingTable.empty
    }

    private let state = Mutex(State())

    init(faults: Faults = Faults()) { state.withLock { $0.faults = faults } }

    func setFaults(_ faults: Faults) { state.withLock { $0.faults = faults } }

    /// As given to `prepare`, nil before it and after `tearDown`.
    var node: NodeNetwork? { state.withLock { $0.node } }
    /// As given to `program` last.
    var table: BalancingTable { state.withLock { $0.table } }
    var attachments: [TaskID: IPv4Address] { state.withLock { $0.attachments } }
    /// As given to `connect` last.
    var remotes: [RemoteNode] { state.withLock { $0.remotes } }

    func prepare(_ node: NodeNetwork) async throws {
        try state.withLock { state in
            try state.faults.take(.prepare)
            state.node = node
        }
    }

    func connect(_ nodes: [RemoteNode]) async throws -> [RefusedNode] {
        try state.withLock { state in
            try state.faults.take(.connect)
            state.remotes = nodes
            return []
        }
    }

    func attach(_ request: AttachmentRequest) async throws -> NetworkAttachment {
        try state.withLock { state in
            try state.faults.take(.attach)
            if let holder = state.attachments.first(where: { $0.value == request.address && $0.key != request.task }) {
                throw SimulatedError(
                    .networkFailed, "address \(request.address) belongs to task \(holder.key)",
                    hint: "detach that task first")
            }
            state.attachments[request.task] = request.address
            return NetworkAttachment(
                namespacePath: nil, interface: "hm\(request.task.raw.prefix(12))", address: request.address)
        }
    }

    func detach(task: TaskID) async throws {
        try state.withLock { state in
            try state.faults.take(.detach)
            state.attachments[task] = nil
        }
    }

    func attachedTasks() async throws -> [TaskID] { state.withLock { $0.attachments.keys.sorted() } }

    func addresses() async throws -> [TaskID: IPv4Address] { state.withLock { $0.attachments } }

    /// Every node that was connected is reached: there is nothing in between.
    func probe(_ nodes: [RemoteNode], within limit: Duration) async throws -> [PathDiagnosis] {
        state.withLock { state in
            nodes.map { node in
                guard !state.remotes.contains(where: { $0.id == node.id }) else {
                    return PathDiagnosis(node: node.id, finding: .healthy)
                }
                return PathDiagnosis(
                    node: node.id, finding: .missingRoute,
                    reason: Reason(
                        .networkFailed, "node `\(node.name)` is not connected yet",
                        hint: "it is within a minute; see the log of this node"))
            }
        }
    }

    func conflicts(_ ranges: AddressRanges) async throws -> [Reason] { [] }

    func knock(
        _ others: [IPv4Address], from own: IPv4Address, nonce: [UInt8], within limit: Duration
    ) async throws -> [IPv4Address: Knocks] {
        Dictionary(others.map { ($0, Knocks.all) }, uniquingKeysWith: { first, _ in first })
    }

    func encryption() async throws -> EncryptionSupport {
        EncryptionSupport(wireGuard: "a simulated network sends nothing", esp: "a simulated network sends nothing")
    }

    func program(_ table: BalancingTable) async throws -> [PublishedPort] {
        try state.withLock { state in
            try state.faults.take(.program)
            state.table = table
            return Self.taken(table.ports, state)
        }
    }

    func portsInUse(_ ports: [PublishedPort]) async -> [PublishedPort] { state.withLock { Self.taken(ports, $0) } }

    func tearDown() async throws {
        state.withLock { state in
            state.node = nil
            state.remotes = []
            state.attachments = [:]
            state.table = .empty
        }
    }

    private static func taken(_ ports: [PublishedPort], _ state: State) -> [PublishedPort] {
        ports.filter { state.faults.portsInUse.contains($0.hostPort) }.sorted()
    }
}

/// Remembers the table of names it was handed last.
final class SimulatedNames: NameService {
    private let last = Mutex(NameTable.empty)

    init() {}

    var table: NameTable { last.withLock { $0 } }
    func publish(_ table: NameTable) async { last.withLock { $0 = table } }
}
