// SPDX-License-Identifier: Apache-2.0
public import Model

/// The network of this node, in the kernel: routed veth pairs, rules in the table `inet hivemind`, both of which
/// outlive the daemon and are taken over by the next one.
///
/// Namespaces are bind mounts `<data-dir>/netns/<task id>`; links of the node are named `hm<task id>`; routes carry
/// protocol 111. One daemon per network namespace. Everything runs on one thread, in the order it was asked for.
/// Errors are `NetworkError`.
///
/// Cost in a debug build on a busy two-core machine with 1,000 services of 3: attach 3 to 8 ms, detach 35 to 50 ms
/// (the kernel waits for readers), one endpoint less about 15 ms, most of it a walk of the kernel's connection table;
/// the rule transaction itself 0.7 ms.
public final class KernelNetworking: Networking {
    private let engine: NetworkEngine

    /// Works in the network namespace of the process. Opens nothing yet.
    /// - Parameter dataDirectory: absolute; handles of namespaces are kept in its folder `netns`.
    /// - Throws: when no thread can be started.
    public convenience init(dataDirectory: String) throws {
        try self.init(dataDirectory: dataDirectory, namespacePath: nil)
    }

    /// - Parameter namespacePath: the namespace to work in instead of the process's own.
    package init(dataDirectory: String, namespacePath: String?) throws {
        engine = NetworkEngine(worker: try WorkerThread(namespacePath: namespacePath), dataDirectory: dataDirectory)
    }

    /// Takes over what an earlier run left, without a gap for open or new connections.
    ///
    /// Sets `ip_forward` and `route_localnet`, no `send_redirects`; they stay set after `tearDown`.
    /// - Throws: `.overlap` naming the host's route, `.invalid` for ranges that do not fit each other.
    public func prepare(_ node: NodeNetwork) async throws { try await engine.prepare(node) }

    /// One VXLAN device, `hm.vx`; for each node a forwarding entry, a permanent neighbour and a route, so that nothing is
    /// ever flooded or asked for. Compares all of it with the kernel's and changes what differs: to be called when the
    /// list changed, and now and then. What leads to nodes that stay is not touched.
    ///
    /// The MTU of the device and of every container is that of the underlay's link less 50 bytes.
    /// - Throws: `.notFound` when no link has this node's address, `.alreadyExists` or `.busy` when another device or
    ///   program has the overlay's port, `.overlap` naming a route of the host, `.invalid` when the underlay's MTU is too
    ///   small or the node was prepared without an end of the overlay.
    public func connect(_ nodes: [RemoteNode]) async throws -> [RefusedNode] { try await engine.connect(nodes) }

    /// Tries the way to every one of `nodes` with real packets of both sizes, and changes nothing.
    ///
    /// All at once, on a thread of its own: other calls go on.
    /// - Parameters:
    ///   - nodes: every other node, so that two with one address are found.
    ///   - limit: how long an answer may take; returns earlier when all have answered.
    /// - Returns: one for each, in their order.
    public func diagnose(_ nodes: [RemoteNode], within limit: Duration) async throws -> [OverlayDiagnosis] {
        let (probe, broken, conditions) = try await engine.makeProbe(nodes)
        let answers = try await Threads.runAside { probe.run(nodes, within: limit) }
        return nodes.map { node in
            OverlayDiagnosis(
                node, answers[node.id] ?? [], isWired: !broken.contains(node.id), others: nodes, conditions)
        }
    }

    public func probe(_ nodes: [RemoteNode], within limit: Duration) async throws -> [PathDiagnosis] {
        try await diagnose(nodes, within: limit).map {
            PathDiagnosis(node: $0.node, finding: $0.finding, reason: $0.reason)
        }
    }

    /// The interface is `eth0`, with the address as /32. Completes or rebuilds what a crash left.
    /// - Throws: `.invalid` for an address outside this node's subnet, `.alreadyExists` when another task has it.
    public func attach(_ request: AttachmentRequest) async throws -> NetworkAttachment {
        try await engine.attach(request)
    }

    /// TCP connections of the task end here; until then they go on, in service or not.
    public func detach(task: TaskID) async throws { try await engine.detach(task) }

    public func attachedTasks() async throws -> [TaskID] { try await engine.attachedTasks() }

    public func conflicts(_ ranges: AddressRanges) async throws -> [Reason] {
        try await engine.conflicts(ranges).map(\.reason)
    }

    /// On a thread of its own: other calls go on.
    public func knock(
        _ others: [IPv4Address], from own: IPv4Address, nonce: [UInt8], within limit: Duration
    ) async throws -> [IPv4Address: Knocks] {
        let knock = try await engine.makeKnock(from: own)
        return try await Threads.runAside { knock.run(others, nonce: nonce, within: limit) }
    }

    /// Makes a link and a security association for a moment.
    public func encryption() async throws -> EncryptionSupport { try await engine.encryption() }

    public func addresses() async throws -> [TaskID: IPv4Address] { try await engine.addresses() }

    /// Writes what differs from the last table; everything, still in one transaction, the first time and when the
    /// differences are refused. UDP flows to endpoints that left are cut, TCP connections are not.
    ///
    /// Without an endpoint TCP is reset and UDP answered with an ICMP error at once; a program of the node itself that
    /// sends a datagram to such a VIP gets EPERM.
    ///
    /// An endpoint past the 1000th of a service gets no connections. A port two services publish goes to the one with
    /// the lower VIP and is returned for the other.
    public func program(_ table: BalancingTable) async throws -> [PublishedPort] { try await engine.program(table) }

    /// Ports that cannot be tried (no descriptors left, no privilege) count as in use.
    public func portsInUse(_ ports: [PublishedPort]) async -> [PublishedPort] {
        do { return try await engine.portsInUse(ports) } catch { return ports }
    }

    /// Containers lose their network too.
    public func tearDown() async throws { try await engine.tearDown() }
}
