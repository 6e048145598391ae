// SPDX-License-Identifier: Apache-2.0
internal import Glibc
internal import Model

/// All work on the kernel, one operation after the other on one thread of its own.
actor NetworkEngine {
    /// Made on the worker's thread, because they belong to its namespace.
    private final class Handles {
        let socket: NetlinkSocket
        let flows: FlowTable
        let firewall: Firewall

        init() throws(NetworkError) {
            socket = try NetlinkSocket()
            flows = try FlowTable()
            firewall = try Firewall()
        }
    }

    private let worker: WorkerThread
    private let folder: NamespaceFolder
    private let ports = PortReservations()
    private var opened: Handles?
    private var node: NodeNetwork?
    /// This node's end of the overlay as `prepare` or `connect` last made it.
    private var overlay: OverlayDevice?
    /// Node's end and address of every local container; read from the kernel by `prepare`.
    private var attachments: [LinkName: IPv4Address] = [:]

    nonisolated var unownedExecutor: UnownedSerialExecutor { worker.asUnownedSerialExecutor() }

    init(worker: WorkerThread, dataDirectory: String) {
        self.worker = worker
        folder = NamespaceFolder(dataDirectory: dataDirectory)
    }

    private func handles() throws(NetworkError) -> Handles {
        if let opened { return opened }
        if let refusal = worker.refusal { throw refusal }
        let handles = try Handles()
        opened = handles
        return handles
    }

    private func preparedNode() throws(NetworkError) -> NodeNetwork {
        guard let node else {
            throw NetworkError(.notFound, "the node's network is not prepared yet", hint: "it is tried again")
        }
        return node
    }

    func prepare(_ node: NodeNetwork) throws(NetworkError) {
        let handles = try handles()
        try NodeSetup(node: node).ensure(handles.socket)
        try folder.ensure()
        attachments = try attachmentsInKernel(handles)
        try handles.firewall.ensureTable(Ruleset(node: node), attachments: attachments)
        // Known before the overlay is tried: without it, containers of this node still reach each other.
        self.node = node
        _ = try ensureOverlay(handles, node)
    }

    /// - Returns: the node's end, with its index; nil for a node that is alone.
    private func ensureOverlay(_ handles: Handles, _ node: NodeNetwork) throws(NetworkError) -> Int32? {
        let link = try OverlaySetup(node: node).ensureDevice(handles.socket)
        overlay = link?.device
        if let link { try fit(handles, mtu: link.device.mtu) }
        return link?.index
    }

    /// The node's end last: when it has the MTU, the container's has it too.
    private func fit(_ handles: Handles, mtu: Int) throws(NetworkError) {
        for link in try handles.socket.links() where link.mtu != mtu {
            guard let name = LinkName(link: link.name), attachments[name] != nil else { continue }
            let path = folder.handle(name)
            if NetworkNamespace.exists(path) {
                try NetworkNamespace.run(in: path) { () throws(NetworkError) in try Attachment.Inside.setMTU(mtu) }
            }
            try handles.socket.setMTU(link.index, mtu)
        }
    }

    func connect(_ nodes: [RemoteNode]) throws(NetworkError) -> [RefusedNode] {
        let node = try preparedNode()
        let handles = try handles()
        guard let index = try ensureOverlay(handles, node) else {
            guard nodes.isEmpty else {
                throw NetworkError(
                    .invalid,
                    "this node has no end of the overlay, so it reaches no other node",
                    hint: "prepare the node's network with the address the other nodes know it by"
                )
            }
            return []
        }
        return try OverlaySetup(node: node).connect(handles.socket, device: index, nodes)
    }

    /// - Returns: the probe, whose sockets are in this node's namespace, and the nodes this one has no complete way to.
    func makeProbe(
        _ nodes: [RemoteNode]
    ) throws(NetworkError) -> (probe: OverlayProbe, broken: Set<NodeID>, conditions: OverlayDiagnosis.Conditions) {
        let node = try preparedNode()
        let (broken, conditions) = try OverlaySetup(node: node).examine(try handles().socket, nodes)
        let identifier = UInt16.random(in: 1...UInt16.max)
        return (try OverlayProbe(conditions, identifier: identifier), broken, conditions)
    }

    private func attachmentsInKernel(_ handles: Handles) throws(NetworkError) -> [LinkName: IPv4Address] {
        let names = Dictionary(
            try handles.socket.links().compactMap { link in LinkName(link: link.name).map { (link.index, $0) } },
            uniquingKeysWith: { first, _ in first }
        )
        var found: [LinkName: IPv4Address] = [:]
        for route in try handles.socket.routes() where route.isOurs && route.destination.prefix == 32 {
            if let name = names[route.link ?? 0] { found[name] = route.destination.network }
        }
        return found
    }

    func attach(_ request: AttachmentRequest) throws(NetworkError) -> NetworkAttachment {
        let name = try LinkName(request.task)
        let node = try preparedNode()
        let (address, subnet) = (request.address, node.subnet)
        guard subnet.contains(address), address > subnet[1], address < subnet[Int(subnet.count) - 1] else {
            throw NetworkError(.invalid, "\(address) is not a container address of this node's \(subnet)")
        }
        if let other = attachments.first(where: { $0.value == address && $0.key != name })?.key {
            throw NetworkError(
                .alreadyExists,
                "\(address) already belongs to task `\(other.task)`",
                hint: "detach that task first"
            )
        }
        let handles = try handles()
        try folder.ensure()
        let attachment = Attachment(name: name, address: address, path: folder.handle(name), mtu: overlay?.mtu)
        // Known before it exists: a failure half way must not let another task have the address.
        let before = attachments.updateValue(address, forKey: name)
        try attachment.ensure(handles.socket, source: subnet[1])
        try ensureRules(handles, node, adding: name, address)
        if let before, before != address { try forget(handles, before) }
        return NetworkAttachment(namespacePath: attachment.path, interface: Attachment.interface, address: address)
    }

    private func ensureRules(
        _ handles: Handles,
        _ node: NodeNetwork,
        adding name: LinkName,
        _ address: IPv4Address
    ) throws(NetworkError) {
        let ruleset = Ruleset(node: node)
        if var state = handles.firewall.state {
            state.attachments = attachments
            return try handles.firewall.apply(ruleset, state)
        }
        // Adopted after a restart: the services are not known before the first `program`.
        do throws(NetworkError) { try handles.firewall.adopt(name, address) } catch {
            try handles.firewall.apply(ruleset, RuleState(attachments: attachments))
        }
    }

    func detach(_ task: TaskID) throws(NetworkError) {
        let name = try LinkName(task)
        let handles = try handles()
        let address = if let known = attachments[name] { known } else { try attachmentsInKernel(handles)[name] }
        if let link = try handles.socket.link(named: name.description) { try handles.socket.deleteLink(link) }
        try NetworkNamespace.remove(folder.handle(name))
        attachments[name] = nil
        if let node, var state = handles.firewall.state, state.attachments[name] != nil {
            state.attachments[name] = nil
            try handles.firewall.apply(Ruleset(node: node), state)
        }
        if let address { try forget(handles, address) }
    }

    /// Every connection from and to an address that has no container any more.
    private func forget(_ handles: Handles, _ address: IPv4Address) throws(NetworkError) {
        try handles.flows.delete(.openedBy(address)) { $0.source == address }
        try handles.flows.delete(.answeredBy(address)) { $0.answering == address }
    }

    func attachedTasks() throws(NetworkError) -> [TaskID] {
        var names = Set(try folder.tasks())
        for link in try handles().socket.links() {
            if let name = LinkName(link: link.name) { names.insert(name) }
        }
        return names.map(\.task).sorted()
    }

    func conflicts(_ ranges: AddressRanges) throws(NetworkError) -> [NetworkError] {
        let handles = try handles()
        let (routes, links) = (try handles.socket.routes(), try handles.socket.links())
        let names = Dictionary(links.map { ($0.index, $0.name) }, uniquingKeysWith: { first, _ in first })
        return NodeSetup.overlap(ranges, routes: routes, linkNames: names).map { [$0] } ?? []
    }

    /// - Returns: with sockets in this node's namespace.
    func makeKnock(from own: IPv4Address) throws(NetworkError) -> OverlayKnock {
        let handles = try handles()
        let link = try OverlayDevice.underlay(
            own, links: try handles.socket.links(), addresses: try handles.socket.addresses())
        return try OverlayKnock(from: own, port: OverlayEnd.standardPort, mtu: link.mtu)
    }

    func encryption() throws(NetworkError) -> EncryptionSupport {
        if let refusal = worker.refusal { throw refusal }
        return try EncryptionProbe.run()
    }

    func addresses() throws(NetworkError) -> [TaskID: IPv4Address] {
        let found = try attachmentsInKernel(try handles())
        return Dictionary(found.map { ($0.key.task, $0.value) }, uniquingKeysWith: { first, _ in first })
    }

    func program(_ table: BalancingTable) throws(NetworkError) -> [PublishedPort] {
        let node = try preparedNode()
        let handles = try handles()
        let wanted = table.ports
        var refused: Set<PublishedPort> = []
        for port in wanted where try !ports.reserve(HostPort(port)) { refused.insert(port) }

        let before = handles.firewall.state
        let (state, doubled) = RuleState.make(table, attachments: attachments, refused: refused)
        try handles.firewall.apply(Ruleset(node: node), state)
        let published = state.published
        ports.release { published[$0] == nil }

        if before.map({ $0.leavesFlows(state) }) ?? true {
            // A busy UDP flow never expires. TCP ends by itself, or with `detach`. Costs a walk of the kernel's table.
            try handles.flows.delete(.ofProtocol(HostPort.udpNumber)) { flow in
                state.isStale(flow, published: published, ranges: node.ranges)
            }
        }
        return (Array(refused) + doubled).sorted()
    }

    func portsInUse(_ asked: [PublishedPort]) throws(NetworkError) -> [PublishedPort] {
        if let refusal = worker.refusal { throw refusal }
        var taken: [PublishedPort] = []
        for port in asked where try ports.isTaken(HostPort(port)) { taken.append(port) }
        return taken
    }

    func tearDown() throws(NetworkError) {
        let handles = try handles()
        try handles.firewall.removeTable()
        ports.release { _ in true }
        for link in try handles.socket.links() where LinkName(link: link.name) != nil {
            try handles.socket.deleteLink(link)
        }
        for name in try folder.tasks() { try NetworkNamespace.remove(folder.handle(name)) }
        try OverlaySetup.removeDevice(handles.socket)
        let ranges = node ?? NodeNetwork(subnet: AddressRanges.standard.containers, ranges: .standard)
        try NodeSetup(node: ranges).remove(handles.socket)
        attachments = [:]
        overlay = nil
        node = nil
    }
}
