// SPDX-License-Identifier: Apache-2.0
internal import Model

/// Everything the table in the kernel holds beyond its fixed part, as values: what the next change is made from.
struct RuleState: Equatable, Sendable {
    /// By VIP; ports nobody else has.
    private(set) var services: [IPv4Address: BalancedService] = [:]
    private(set) var pinned: [HostPort: PinnedPort] = [:]
    var attachments: [LinkName: IPv4Address] = [:]

    /// - Parameter refused: ports not to publish.
    /// - Returns: the state, and the ports left out because an earlier service (by VIP) has them.
    static func make(
        _ table: BalancingTable,
        attachments: [LinkName: IPv4Address],
        refused: Set<PublishedPort> = []
    ) -> (state: RuleState, doubled: [PublishedPort]) {
        var state = RuleState(attachments: attachments)
        var taken: Set<HostPort> = []
        var doubled: [PublishedPort] = []
        for var service in table.services where state.services[service.vip] == nil {
            var kept: [PublishedPort] = []
            for port in service.ports where !refused.contains(port) {
                if taken.insert(HostPort(port)).inserted { kept.append(port) } else { doubled.append(port) }
            }
            service.ports = kept
            state.services[service.vip] = service
        }
        for pin in table.pinned where !refused.contains(pin.port) {
            if taken.insert(HostPort(pin.port)).inserted {
                state.pinned[HostPort(pin.port)] = pin
            } else {
                doubled.append(pin.port)
            }
        }
        return (state, doubled)
    }

    /// The elements that differ, on each side. Costs a comparison per service and strings only for what changed.
    func difference(to new: RuleState) -> (old: RuleElements, new: RuleElements) {
        var gone = RuleElements()
        var come = RuleElements()
        for (vip, service) in services where new.services[vip] != service { gone.add(service) }
        for (vip, service) in new.services where services[vip] != service { come.add(service) }
        for (port, pin) in pinned where new.pinned[port] != pin { gone.add(pin) }
        for (port, pin) in new.pinned where pinned[port] != pin { come.add(pin) }
        for (link, address) in attachments where new.attachments[link] != address { gone.add(link, address) }
        for (link, address) in new.attachments where attachments[link] != address { come.add(link, address) }
        return (gone, come)
    }

    var elements: RuleElements { RuleState().difference(to: self).new }

    /// Chains that are needed.
    var chains: Set<BalanceChain> { elements.chains }

    /// Endpoints of published UDP ports and VIPs that may still have flows although `new` does not balance to them,
    /// or UDP ports whose flows so far went to the host itself.
    func leavesFlows(_ new: RuleState) -> Bool {
        for (vip, service) in services {
            guard let next = new.services[vip] else { return true }
            if next == service { continue }
            if !Set(service.endpoints).isSubset(of: next.endpoints) { return true }
            if !Set(service.ports).isSubset(of: next.ports) { return true }
        }
        if pinned.contains(where: { new.pinned[$0.key] != $0.value }) { return true }
        return new.services.contains { vip, service in
            service.ports.contains { $0.protocol == .udp && services[vip]?.ports.contains($0) != true }
        } || new.pinned.contains { $0.key.protocol == .udp && pinned[$0.key] == nil }
    }

    /// True for a UDP flow this state would not make: to an endpoint that left, or past the balancing to the host.
    ///
    /// Others are left alone: a TCP connection ends when one of its ends does, and draining relies on it.
    func isStale(_ flow: Flow, published: [HostPort: Publication], ranges: AddressRanges) -> Bool {
        guard flow.protocolNumber == HostPort.udpNumber else { return false }
        if ranges.virtual.contains(flow.destination) {
            return services[flow.destination]?.endpoints.contains(flow.answering) != true
        }
        let goal = published[HostPort(flow.destinationPort, protocol: .udp)]
        if flow.isTranslated {
            guard ranges.containers.contains(flow.answering) else { return false }
            return goal?.endpoints.contains(flow.answering) != true || goal?.containerPort != flow.answeringPort
        }
        return goal != nil && !ranges.containers.contains(flow.source)
            && flow.destination != AddressRanges.nameServer
    }

    /// Where a published port leads.
    struct Publication: Equatable {
        var endpoints: [IPv4Address]
        var containerPort: UInt16
    }

    var published: [HostPort: Publication] {
        var found = pinned.mapValues {
            Publication(endpoints: [$0.endpoint], containerPort: $0.port.containerPort)
        }
        for service in services.values {
            for port in service.ports {
                found[HostPort(port)] = Publication(endpoints: service.endpoints, containerPort: port.containerPort)
            }
        }
        return found
    }
}

extension HostPort {
    static let udpNumber: UInt8 = 17
}
