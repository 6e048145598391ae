// SPDX-License-Identifier: Apache-2.0
public import Model

/// What every `Networking` must do, real or simulated, as far as it can be seen through the protocol alone.
///
/// Each check leaves nothing attached and nothing programmed. The network is prepared by the checks.
public struct NetworkingConformance: Sendable {
    public struct Failure: Error, CustomStringConvertible {
        public var description: String
    }

    private let network: any Networking
    private let node: NodeNetwork
    private let freePort: UInt16

    /// - Parameters:
    ///   - node: subnet with at least 10 free addresses from `.10` on.
    ///   - freePort: nobody listens on it.
    public init(_ network: any Networking, node: NodeNetwork, freePort: UInt16 = 18080) {
        self.network = network
        self.node = node
        self.freePort = freePort
    }

    /// All of them, each named by what it says of the network.
    public var checks: [(name: String, run: @Sendable () async throws -> Void)] {
        [
            ("prepare may be repeated", prepareIsIdempotent),
            ("attach gives the address that was asked for, and the same again", attachIsIdempotent),
            ("attached tasks are listed in order until they are detached", attachedTasksAreListed),
            ("detach of an unknown task is no error", detachOfUnknown),
            ("two tasks cannot have one address", addressIsTakenOnce),
            ("a detached task's address can be given away", addressIsGivenAway),
            ("an address outside the subnet is refused", foreignAddressIsRefused),
            ("the same table may be programmed again", programIsIdempotent),
            ("a free port is published and is not in use by the host", freePortIsPublished),
        ]
    }

    public func checkAll() async throws {
        for check in checks {
            do { try await check.run() } catch { throw Failure(description: "\(check.name): \(error)") }
        }
    }

    private func expect(_ condition: Bool, _ message: @autoclosure () -> String) throws {
        if !condition { throw Failure(description: message()) }
    }

    private func request(_ task: TaskID, _ host: Int) -> AttachmentRequest {
        AttachmentRequest(task: task, address: node.subnet[host])
    }

    @Sendable private func prepareIsIdempotent() async throws {
        try await network.prepare(node)
        try await network.prepare(node)
    }

    @Sendable private func attachIsIdempotent() async throws {
        let first = try await network.attach(request("conforma", 10))
        let second = try await network.attach(request("conforma", 10))
        try await network.detach(task: "conforma")
        try expect(first.address == node.subnet[10], "asked for \(node.subnet[10]), got \(first.address)")
        try expect(first == second, "\(first) then \(second)")
        try expect(!first.interface.isEmpty, "the interface has no name")
    }

    @Sendable private func attachedTasksAreListed() async throws {
        for (task, host) in [("conformb", 12), ("conforma", 11)] as [(TaskID, Int)] {
            _ = try await network.attach(request(task, host))
        }
        let both = try await network.attachedTasks()
        try await network.detach(task: "conforma")
        let one = try await network.attachedTasks()
        try await network.detach(task: "conformb")
        let none = try await network.attachedTasks()
        try expect(both == ["conforma", "conformb"], "listed \(both)")
        try expect(one == ["conformb"], "listed \(one)")
        try expect(none.isEmpty, "listed \(none)")
    }

    @Sendable private func detachOfUnknown() async throws { try await network.detach(task: "conformx") }

    @Sendable private func addressIsTakenOnce() async throws {
        _ = try await network.attach(request("conforma", 13))
        var refused = false
        do { _ = try await network.attach(request("conformb", 13)) } catch { refused = error is any ReasonError }
        try await network.detach(task: "conforma")
        try await network.detach(task: "conformb")
        try expect(refused, "the second task got the address too, or an error without a reason")
    }

    @Sendable private func addressIsGivenAway() async throws {
        _ = try await network.attach(request("conforma", 14))
        try await network.detach(task: "conforma")
        let next = try await network.attach(request("conformb", 14))
        try await network.detach(task: "conformb")
        try expect(next.address == node.subnet[14], "got \(next.address)")
    }

    @Sendable private func foreignAddressIsRefused() async throws {
        for address in [node.subnet[0], node.subnet[1], IPv4Address(value: 192 << 24 | 2 << 8 | 77)] {
            var refused = false
            do {
                _ = try await network.attach(AttachmentRequest(task: "conforma", address: address))
            } catch { refused = error is any ReasonError }
            try await network.detach(task: "conforma")
            try expect(refused, "\(address) was accepted")
        }
    }

    @Sendable private func programIsIdempotent() async throws {
        let service = BalancedService(
            vip: node.ranges.virtual[10],
            endpoints: [node.subnet[15], node.subnet[16]],
            ports: []
        )
        for _ in 0..<2 {
            let refused = try await network.program(BalancingTable(index: 1, services: [service]))
            try expect(refused.isEmpty, "refused \(refused)")
        }
        for _ in 0..<2 { _ = try await network.program(.empty) }
    }

    @Sendable private func freePortIsPublished() async throws {
        let port = PublishedPort(hostPort: freePort, containerPort: 80, protocol: .tcp)
        let service = BalancedService(vip: node.ranges.virtual[11], endpoints: [node.subnet[15]], ports: [port])
        let before = await network.portsInUse([port])
        let refused = try await network.program(BalancingTable(index: 1, services: [service]))
        let during = await network.portsInUse([port])
        _ = try await network.program(.empty)
        let after = await network.portsInUse([port])
        try expect(refused.isEmpty, "refused \(refused)")
        try expect(before.isEmpty && during.isEmpty && after.isEmpty, "in use: \(before), \(during), \(after)")
    }
}
