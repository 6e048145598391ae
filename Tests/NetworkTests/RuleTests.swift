// SPDX-License-Identifier: Apache-2.0
import Model
import Testing

@testable import ContainerNetwork

private func address(_ text: String) -> IPv4Address { IPv4Address(text) ?? IPv4Address(value: 0) }

private func service(_ vip: Int, _ endpoints: [Int], _ ports: [PublishedPort] = []) -> BalancedService {
    BalancedService(
        vip: AddressRanges.standard.virtual[vip],
        endpoints: endpoints.map { AddressRanges.standard.containers[256 + $0] },
        ports: ports
    )
}

private func state(_ services: [BalancedService], _ attachments: [LinkName: IPv4Address] = [:]) -> RuleState {
    RuleState.make(BalancingTable(index: 1, services: services), attachments: attachments).state
}

private let web = PublishedPort(hostPort: 8080, containerPort: 80, protocol: .tcp)
private let dns = PublishedPort(hostPort: 5300, containerPort: 53, protocol: .udp)

@Suite struct `Rules` {
    private let node = NodeNetwork(subnet: IPv4Subnet(address("10.210.1.0"), prefix: 24), ranges: .standard)

    @Test func `the fixed part names the addresses of its node`() {
        let text = Ruleset(node: node).replacement(RuleElements())
        #expect(text.hasPrefix("add table inet hivemind\ndelete table inet hivemind\ntable inet hivemind {\n"))
        #expect(text.contains("snat ip to 10.210.1.1 fully-random"))
        #expect(text.contains("ip daddr 10.211.0.0/16 goto refuse"))
        #expect(text.contains("ip saddr 10.210.0.0/16 ip daddr != 10.210.0.0/16 oifname != \"hm*\" masquerade"))
    }

    @Test func `the marker differs as soon as anything of the fixed part does`() {
        var other = node
        other.subnet = IPv4Subnet(address("10.210.2.0"), prefix: 24)
        #expect(Ruleset(node: node).marker == Ruleset(node: node).marker)
        #expect(Ruleset(node: node).marker != Ruleset(node: other).marker)
    }

    @Test func `a service is one element and one per endpoint`() {
        let elements = state([service(2, [5, 6], [web])]).elements.elements
        #expect(elements[.ep] == ["10.211.0.2 . 0": "10.210.1.5", "10.211.0.2 . 1": "10.210.1.6"])
        #expect(elements[.svc]?.keys.sorted() == ["10.211.0.2"])
        #expect(elements[.svc]?["10.211.0.2"]?.hasPrefix("goto rr2_") == true)
        #expect(elements[.hp_tcp] == ["8080 . 0": "10.210.1.5 . 80", "8080 . 1": "10.210.1.6 . 80"])
        #expect(elements[.hostport]?["tcp . 8080"]?.hasPrefix("goto hp2_") == true)
        #expect(elements[.hp_none] == nil)
    }

    @Test func `a published port without an endpoint is refused, not translated`() {
        let elements = state([service(2, [], [web, dns])]).elements.elements
        #expect(elements[.hp_none]?.keys.sorted() == ["tcp . 8080", "udp . 5300"])
        #expect(elements[.svc] == nil)
        #expect(elements[.hostport] == nil)
    }

    @Test func `one endpoint less is four elements and a chain, whatever else is there`() {
        let many = (10..<500).map { service($0, [$0 % 200, 201, 202]) }
        let (gone, come) = state([service(2, [5, 6])] + many).difference(to: state([service(2, [5])] + many))
        let (transactions, chains) = gone.changes(to: come, chains: gone.chains)
        let chain = chains.subtracting(gone.chains).map(\.description).joined()
        #expect(
            transactions == [
                """
                add chain inet hivemind \(chain)
                add rule inet hivemind \(chain) dnat ip to ip daddr . numgen inc mod 1 map @ep

                """,
                """
                delete element inet hivemind svc { 10.211.0.2 }
                add element inet hivemind svc { 10.211.0.2 : goto \(chain) }

                """,
                "delete element inet hivemind ep { 10.211.0.2 . 1 }\n",
            ]
        )
    }

    @Test func `a table of an earlier run is filled anew, its chains stay`() {
        let elements = state([service(2, [5], [web]), service(3, [6, 7])]).elements
        let there = Set(elements.chains.filter { $0.kind == .virtual })
        let (transactions, chains) = elements.refill(chains: there)
        #expect(chains == elements.chains)
        #expect(transactions.count == 2)
        #expect(transactions.first?.split(separator: "\n").allSatisfy { $0.contains(" hp1_") } == true)
        #expect(transactions.last?.contains("add chain") == false)
        for collection in RuleElements.Collection.allCases {
            let kind = collection.isSet ? "set" : "map"
            #expect(transactions.last?.contains("flush \(kind) inet hivemind \(collection.rawValue)\n") == true)
        }
    }

    @Test func `only the name of a shared chain is one`() {
        let chain = BalanceChain(.published, endpoints: 12, spreadBy: 8080)
        #expect(BalanceChain(name: Substring(chain.description)) == chain)
        for name in ["", "rr", "rr1", "rr1_", "rr_1", "rr01_1", "nat_output", "balance", "rr1_0_0", "schema_12"] {
            #expect(BalanceChain(name: Substring(name)) == nil)
        }
    }

    @Test func `nothing new is no transaction`() {
        let (gone, come) = state([service(2, [5])]).difference(to: state([service(2, [5])]))
        #expect(gone.changes(to: come, chains: []).transactions.isEmpty)
    }

    @Test func `a port that moves to another service is deleted before it is added`() throws {
        let (gone, come) = state([service(2, [5], [web]), service(3, [6])])
            .difference(to: state([service(2, [5]), service(3, [6], [web])]))
        let text = gone.changes(to: come, chains: gone.chains.union(come.chains)).transactions
        #expect(
            text == [
                """
                delete element inet hivemind hp_tcp { 8080 . 0 }
                add element inet hivemind hp_tcp { 8080 . 0 : 10.210.1.6 . 80 }

                """
            ]
        )
    }

    @Test func `the first service by VIP has a port two publish`() {
        let table = BalancingTable(index: 1, services: [service(2, [5], [web]), service(3, [6], [web])])
        let (state, doubled) = RuleState.make(table, attachments: [:])
        #expect(doubled == [web])
        #expect(state.published[HostPort(web)]?.endpoints == service(2, [5]).endpoints)
    }

    @Test func `a port of this node alone leads to one task, and gives way to a service's`() {
        let (one, two) = (service(2, [5]).endpoints[0], service(2, [6]).endpoints[0])
        func make(_ services: [BalancedService], _ pinned: [PinnedPort]) -> (state: RuleState, doubled: [PublishedPort])
        {
            RuleState.make(BalancingTable(index: 1, services: services, pinned: pinned), attachments: [:])
        }
        let before = make([], [PinnedPort(port: web, endpoint: one), PinnedPort(port: dns, endpoint: one)]).state
        #expect(before.elements.elements[.hp_tcp] == ["8080 . 0": "\(one) . 80"])
        #expect(before.elements.elements[.svc] == nil)
        let after = make([], [PinnedPort(port: web, endpoint: two)]).state
        let (gone, come) = before.difference(to: after)
        let text = gone.changes(to: come, chains: gone.chains.union(come.chains)).transactions.joined()
        #expect(text.contains("add element inet hivemind hp_tcp { 8080 . 0 : \(two) . 80 }"))
        #expect(text.contains("delete element inet hivemind hp_udp { 5300 . 0 }"))
        #expect(before.leavesFlows(after) && !after.leavesFlows(after))
        let (state, doubled) = make([service(3, [7], [web])], [PinnedPort(port: web, endpoint: one)])
        #expect(doubled == [web])
        #expect(state.published[HostPort(web)]?.endpoints == service(3, [7]).endpoints)
    }

    @Test func `a refused port has no element`() {
        let table = BalancingTable(index: 1, services: [service(2, [5], [web, dns])])
        let (state, _) = RuleState.make(table, attachments: [:], refused: [web])
        #expect(state.elements.elements[.hostport]?.keys.sorted() == ["udp . 5300"])
    }

    @Test func `an attachment is one pair in each of two sets`() throws {
        let link = try LinkName("abc")
        let elements = state([], [link: address("10.210.1.5")]).elements.elements
        #expect(elements[.antispoof] == ["\"hmabc\" . 10.210.1.5": ""])
        #expect(elements[.hairpin] == ["10.210.1.5 . 10.210.1.5": ""])
    }

    @Test func `endpoints past the thousandth get nothing`() {
        let elements = state([service(2, Array(0..<1200))]).elements.elements
        #expect(elements[.ep]?.count == 1000)
        #expect(elements[.svc]?["10.211.0.2"]?.hasPrefix("goto rr1000_") == true)
    }

    @Test func `neighbouring services rarely share a counter`() {
        let groups = (2..<102).map { BalanceChain(.virtual, endpoints: 3, spreadBy: service($0, []).vip.value).group }
        for group in UInt32(0)..<4 { #expect((15...35).contains(groups.count { $0 == group })) }
    }
}

@Suite struct `Flows that are cut` {
    private let before = state([service(2, [5, 6], [dns])])

    private func flow(_ number: UInt8, to: String, _ port: UInt16, by: String, _ answeringPort: UInt16) -> Flow {
        Flow(
            protocolNumber: number,
            source: address("10.210.1.9"),
            destination: address(to),
            destinationPort: port,
            answering: address(by),
            answeringPort: answeringPort
        )
    }

    private func isStale(_ flow: Flow, _ state: RuleState) -> Bool {
        state.isStale(flow, published: state.published, ranges: .standard)
    }

    @Test func `UDP to an endpoint that left, not TCP`() {
        let after = state([service(2, [5], [dns])])
        #expect(before.leavesFlows(after))
        #expect(isStale(flow(17, to: "10.211.0.2", 53, by: "10.210.1.6", 53), after))
        #expect(isStale(flow(17, to: "192.0.2.1", 5300, by: "10.210.1.6", 53), after))
        #expect(!isStale(flow(6, to: "10.211.0.2", 53, by: "10.210.1.6", 53), after))
    }

    @Test func `not those of endpoints that stay, nor what never was ours`() {
        let after = state([service(2, [5], [dns])])
        #expect(!isStale(flow(17, to: "10.211.0.2", 53, by: "10.210.1.5", 53), after))
        #expect(!isStale(flow(17, to: "192.0.2.1", 5300, by: "10.210.1.5", 53), after))
        #expect(!isStale(flow(17, to: "198.51.100.1", 53, by: "198.51.100.1", 53), after))
        #expect(!isStale(flow(17, to: "192.0.2.1", 9000, by: "172.17.0.2", 90), after))
        #expect(!isStale(flow(17, to: "10.210.1.6", 53, by: "10.210.1.6", 53), after))
    }

    @Test func `those of a port that is published no more, or elsewhere`() {
        var moved = dns
        moved.containerPort = 54
        for after in [state([service(2, [5, 6])]), state([service(2, [5, 6], [moved])])] {
            #expect(before.leavesFlows(after))
            #expect(isStale(flow(17, to: "192.0.2.1", 5300, by: "10.210.1.5", 53), after))
        }
    }

    @Test func `nothing is looked for when endpoints only come`() {
        #expect(!before.leavesFlows(state([service(2, [5, 6, 7], [dns]), service(3, [8])])))
    }
}

@Suite struct `Overlap with the host` {
    private func overlap(_ text: String, link: Int32 = 2, prefix: Int, ours: Bool = false) -> NetworkError? {
        let route = Route(
            destination: IPv4Subnet(address(text), prefix: prefix),
            target: .link(link),
            protocolNumber: ours ? Route.protocolNumber : 2
        )
        return NodeSetup.overlap(.standard, routes: [route], linkNames: [2: "eth7"])
    }

    @Test func `a route inside or around a range is named`() throws {
        let error = try #require(overlap("10.211.3.0", prefix: 24))
        #expect(error.code == .overlap)
        #expect(error.message == "range 10.211.0.0/16 overlaps the route 10.211.3.0/24 dev eth7 of this host")
        #expect(error.hint?.contains("--virtual-subnet") == true)
        #expect(overlap("10.0.0.0", prefix: 8)?.hint?.contains("--container-subnet") == true)
    }

    @Test func `the default route, other networks and our own do not count`() {
        #expect(overlap("0.0.0.0", prefix: 0) == nil)
        #expect(overlap("192.168.0.0", prefix: 16) == nil)
        #expect(overlap("10.210.1.0", prefix: 24, ours: true) == nil)
        #expect(overlap("10.210.1.1", link: 1, prefix: 32) == nil)
    }
}
