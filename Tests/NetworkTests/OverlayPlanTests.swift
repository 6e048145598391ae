// SPDX-License-Identifier: Apache-2.0
import Model
import TestSupport
import Testing

@testable import ContainerNetwork

private let node = NodeNetwork(
    subnet: subnet("10.210.1.0/24"), ranges: .standard, overlay: OverlayEnd(address: address("192.0.2.1")))

private func address(_ text: String) -> IPv4Address {
    IPv4Address(text) ?? IPv4Address(value: 0)
}

private func subnet(_ text: String) -> IPv4Subnet {
    IPv4Subnet(text) ?? IPv4Subnet(IPv4Address(value: 0), prefix: 0)
}

private func remote(_ id: NodeID, _ at: String, _ containers: String) -> RemoteNode {
    RemoteNode(id: id, address: address(at), subnet: subnet(containers))
}

private func link(_ index: Int32, _ name: String, mtu: Int = 1500, tunnel: Tunnel? = nil) -> Link {
    Link(index: index, name: name, peer: 0, hardware: nil, mtu: mtu, isUp: true, tunnel: tunnel)
}

@Suite struct `The device of the overlay` {
    @Test(arguments: [(1500, 1450), (9000, 8950), (1400, 1350), (626, 576)])
    func `encapsulation takes 50 bytes of the underlay's MTU`(underlay: Int, expected: Int) throws {
        let end = try #require(node.overlay)
        let device = try OverlayDevice(end, subnet: node.subnet, underlay: link(2, "up0", mtu: underlay))
        #expect(device.mtu == expected)
    }

    @Test func `an underlay that leaves too little is refused by name`() throws {
        let end = try #require(node.overlay)
        let error = #expect(throws: NetworkError.self) {
            try OverlayDevice(end, subnet: node.subnet, underlay: link(2, "up0", mtu: 625))
        }
        #expect(error?.code == .invalid)
        #expect(error?.message.contains("up0") == true)
        #expect(error?.hint?.contains("626") == true)
    }

    @Test func `its hardware address is made of the subnet, and no container's or gateway's`() {
        #expect("\(HardwareAddress.overlay(node.subnet))" == "02:68:0a:d2:01:00")
        let containers = Set((1..<255).map { HardwareAddress.container(node.subnet[$0]) })
        #expect(!containers.contains(.overlay(node.subnet)))
        #expect(HardwareAddress.overlay(node.subnet) != .gateway)
    }

    @Test func `the underlay is the link with the node's address`() throws {
        let links = [link(1, "lo"), link(2, "a"), link(3, "b"), link(4, "c")]
        let addresses = [
            LinkAddress(link: 2, address: address("10.0.0.1"), prefix: 24),
            LinkAddress(link: 1, address: address("192.0.2.1"), prefix: 32),
            LinkAddress(link: 4, address: address("192.0.2.1"), prefix: 24),
            LinkAddress(link: 3, address: address("192.0.2.1"), prefix: 24),
            LinkAddress(link: 1, address: address("192.0.2.9"), prefix: 32),
        ]
        func find(_ text: String) throws(NetworkError) -> Link {
            try OverlayDevice.underlay(address(text), links: links, addresses: addresses)
        }
        #expect(try find("192.0.2.1").name == "b")
        #expect(try find("10.0.0.1").name == "a")
        #expect(#expect(throws: NetworkError.self) { try find("192.0.2.9") }?.code == .invalid)
        #expect(#expect(throws: NetworkError.self) { try find("192.0.2.8") }?.code == .notFound)
    }

    @Test func `what is wrong decides whether it is corrected or replaced`() throws {
        let end = try #require(node.overlay)
        let device = try OverlayDevice(end, subnet: node.subnet, underlay: link(2, "up0"))
        var right = link(7, OverlayDevice.name, mtu: 1450, tunnel: device.tunnel)
        right.hardware = device.hardware
        func step(_ change: (inout Link) -> Void) -> OverlayDevice.Step {
            var link = right
            change(&link)
            return device.step(from: link)
        }
        #expect(device.step(from: nil) == .add)
        #expect(device.step(from: right) == .keep)
        #expect(step { $0.mtu = 1400 } == .correct)
        #expect(step { $0.isUp = false } == .correct)
        #expect(step { $0.hardware = .gateway } == .replace)
        #expect(step { $0.tunnel = nil } == .replace)
        #expect(step { $0.tunnel?.identifier = 5 } == .replace)
        #expect(step { $0.tunnel?.port = 8472 } == .replace)
        #expect(step { $0.tunnel?.local = address("192.0.2.7") } == .replace)
        #expect(step { $0.tunnel?.local = nil } == .replace)
        #expect(step { $0.tunnel?.underlay = 3 } == .replace)
        #expect(step { $0.tunnel?.isLearning = true } == .replace)
        #expect(step { $0.tunnel?.isSpecial = true } == .replace)
    }

    @Test func `only another device with the same network and port is in the way`() throws {
        let end = try #require(node.overlay)
        let tunnel = try OverlayDevice(end, subnet: node.subnet, underlay: link(2, "up0")).tunnel
        var (otherPort, otherNetwork) = (tunnel, tunnel)
        otherPort.port = 8472
        otherNetwork.identifier = 1
        let harmless = [
            link(2, "up0"), link(3, "flannel.1", tunnel: otherPort), link(4, "vx1", tunnel: otherNetwork),
            link(5, OverlayDevice.name, tunnel: tunnel),
        ]
        #expect(OverlayDevice.conflict(tunnel, links: harmless) == nil)
        let error = OverlayDevice.conflict(tunnel, links: harmless + [link(6, "theirs", tunnel: tunnel)])
        #expect(error?.code == .alreadyExists)
        #expect(error?.message.contains("theirs") == true)
        #expect(error?.hint?.contains("theirs") == true)
    }
}

@Suite struct `The plan of the overlay` {
    @Test func `each node costs one entry of each kind`() {
        let plan = OverlayPlan(node, device: 9, [remote("b", "192.0.2.2", "10.210.2.0/24")])
        let hardware = HardwareAddress(bytes: [0x02, 0x68, 10, 210, 2, 0])
        #expect(plan.refused == [])
        #expect(plan.entries.forwardings == [hardware: .to(address("192.0.2.2"))])
        #expect(plan.entries.neighbours == [address("10.210.2.0"): hardware])
        #expect(
            plan.entries.routes == [
                Route(
                    destination: subnet("10.210.2.0/24"), target: .onLink(address("10.210.2.0"), link: 9),
                    source: address("10.210.1.1"))
            ])
    }

    @Test(arguments: [
        ("192.0.2.2", "10.211.2.0/24", "10.210.0.0/16"), ("192.0.2.2", "10.0.0.0/8", "10.210.0.0/16"),
        ("192.0.2.2", "10.210.2.4/31", "10.210.0.0/16"), ("192.0.2.2", "10.210.1.0/24", "10.210.1.0/24"),
        ("192.0.2.2", "10.210.1.128/25", "10.210.1.0/24"), ("192.0.2.2", "10.210.0.0/16", "10.210.1.0/24"),
        ("192.0.2.2", "10.210.3.0/24", "node a"), ("192.0.2.2", "10.210.3.64/26", "node a"),
        ("192.0.2.1", "10.210.2.0/24", "192.0.2.1"), ("127.0.0.1", "10.210.2.0/24", "127.0.0.1"),
        ("0.0.0.0", "10.210.2.0/24", "0.0.0.0"), ("224.0.0.1", "10.210.2.0/24", "224.0.0.1"),
        ("255.255.255.255", "10.210.2.0/24", "255.255.255.255"), ("10.210.9.1", "10.210.2.0/24", "10.210.9.1"),
        ("10.211.0.5", "10.210.2.0/24", "10.211.0.5"),
    ])
    func `a node that cannot be reached is named, the others are connected`(
        at: String, containers: String, named: String
    ) {
        let good = remote("a", "192.0.2.3", "10.210.3.0/24")
        let plan = OverlayPlan(node, device: 9, [remote("bad", at, containers), good])
        #expect(plan.refused.map(\.node) == ["bad"])
        #expect(plan.refused.first?.reason.message.contains("bad") == true)
        #expect(plan.refused.first?.reason.message.contains(named) == true, "\(plan.refused)")
        #expect(plan.refused.first?.reason.hint != nil)
        #expect(plan.entries == OverlayPlan(node, device: 9, [good]).entries)
    }

    @Test func `a node given twice counts once`() {
        let b = remote("b", "192.0.2.2", "10.210.2.0/24")
        #expect(OverlayPlan(node, device: 9, [b, b]) == OverlayPlan(node, device: 9, [b]))
    }

    @Test(arguments: UInt64(1)...20)
    func `the order of the nodes does not matter`(seed: UInt64) {
        var random = SeededRandom(seed: seed)
        let nodes = (0..<40).map { number in
            RemoteNode(
                id: NodeID("n\(number)"),
                address: IPv4Address(value: 192 << 24 | UInt32.random(in: 0..<50, using: &random)),
                subnet: IPv4Subnet(
                    AddressRanges.standard.containers[Int.random(in: 0..<16, using: &random) << 8],
                    prefix: Int.random(in: 20...26, using: &random)))
        }
        let plan = OverlayPlan(node, device: 9, nodes)
        for _ in 0..<5 { #expect(OverlayPlan(node, device: 9, nodes.shuffled(using: &random)) == plan, "seed \(seed)") }
        // Everybody is either connected or told why not, and no two subnets meet.
        #expect(plan.refused.count + plan.entries.routes.count == nodes.count, "seed \(seed)")
        let taken = plan.entries.routes.map(\.destination) + [node.subnet]
        for (place, one) in taken.enumerated() {
            #expect(!taken[(place + 1)...].contains { $0.overlaps(one) }, "seed \(seed): \(one)")
        }
    }
}

/// What the kernel does with the steps.
private struct Kernel {
    var entries: OverlayEntries

    mutating func perform(_ step: OverlayEntries.Step, random: inout SeededRandom) throws {
        switch step {
        case .setForwarding(let hardware, let address): entries.forwardings[hardware] = .to(address)
        case .setNeighbour(let address, let hardware): entries.neighbours[address] = hardware
        case .setRoute(let route):
            let rivals = entries.routes.filter {
                ($0.destination, $0.table, $0.metric) == (route.destination, route.table, route.metric)
            }
            // In the place of the first one, whichever that is.
            if let replaced = rivals.randomElement(using: &random) { entries.routes.remove(replaced) }
            entries.routes.insert(route)
        case .deleteRoute(let route):
            if entries.routes.remove(route) == nil { throw TestFailure("no route \(route)") }
        case .deleteNeighbour(let address):
            if entries.neighbours.removeValue(forKey: address) == nil { throw TestFailure("no neighbour \(address)") }
        case .deleteForwarding(let hardware):
            if entries.forwardings.removeValue(forKey: hardware) == nil { throw TestFailure("no \(hardware)") }
        }
    }
}

@Suite struct `The steps of the overlay` {
    private static func nodes(_ random: inout SeededRandom) -> [RemoteNode] {
        (2..<14).filter { _ in Bool.random(using: &random) }.map { number in
            RemoteNode(
                id: NodeID("n\(number)"),
                address: IPv4Address(value: 192 << 24 | UInt32.random(in: 2..<9, using: &random)),
                subnet: IPv4Subnet(AddressRanges.standard.containers[number << 8], prefix: 24))
        }
    }

    /// Entries of earlier lists, with some gone, some bent and some added by hand.
    private static func found(_ random: inout SeededRandom) -> OverlayEntries {
        var entries = OverlayPlan(node, device: 9, nodes(&random)).entries
        for hardware in entries.forwardings.keys.sorted() where Int.random(in: 0..<4, using: &random) == 0 {
            let bent: [OverlayEntries.Forwarding?] = [nil, .other, .to(address("198.51.100.1"))]
            entries.forwardings[hardware] = bent.randomElement(using: &random) ?? nil
        }
        for neighbour in entries.neighbours.keys.sorted() where Int.random(in: 0..<4, using: &random) == 0 {
            entries.neighbours[neighbour] = Bool.random(using: &random) ? .gateway : nil
        }
        for route in entries.routes.sorted(by: { $0.destination.network < $1.destination.network }) {
            var copy = route
            switch Int.random(in: 0..<6, using: &random) {
            case 0: entries.routes.remove(route)
            case 1:
                entries.routes.remove(route)
                copy.target = .blackhole
                entries.routes.insert(copy)
            case 2:
                copy.metric = 50
                entries.routes.insert(copy)
            case 3:
                copy.target = .link(3)
                entries.routes.insert(copy)
            default: break
            }
        }
        if Bool.random(using: &random) { entries.forwardings[HardwareAddress(bytes: [0, 0, 0, 0, 0, 0])] = .other }
        return entries
    }

    @Test(arguments: UInt64(1)...200)
    func `they lead from any state to the wanted one, and never through a route to nowhere`(seed: UInt64) throws {
        var random = SeededRandom(seed: seed)
        let wanted = OverlayPlan(node, device: 9, Self.nodes(&random)).entries
        let before = Self.found(&random)
        var kernel = Kernel(entries: before)
        let kept = before.routes.intersection(wanted.routes)
        for step in before.steps(to: wanted) {
            try kernel.perform(step, random: &random)
            #expect(kernel.entries.routes.isSuperset(of: kept), "seed \(seed): \(step) took away a right route")
            guard case .setRoute(let route) = step, case .onLink(let gateway, _) = route.target else { continue }
            let hardware = try #require(kernel.entries.neighbours[gateway])
            #expect(kernel.entries.forwardings[hardware] == wanted.forwardings[hardware], "seed \(seed): \(step)")
        }
        #expect(kernel.entries == wanted, "seed \(seed)")
        #expect(kernel.entries.steps(to: wanted) == [], "seed \(seed)")
    }

    @Test(arguments: UInt64(1)...50)
    func `what both have is not touched`(seed: UInt64) {
        var random = SeededRandom(seed: seed)
        let (before, wanted) = (Self.found(&random), OverlayPlan(node, device: 9, Self.nodes(&random)).entries)
        for step in before.steps(to: wanted) {
            let isNeeded =
                switch step {
                case .deleteRoute(let route): !wanted.routes.contains(route)
                case .setRoute(let route): !before.routes.contains(route)
                case .setForwarding(let hardware, let address): before.forwardings[hardware] != .to(address)
                case .setNeighbour(let address, let hardware): before.neighbours[address] != hardware
                case .deleteNeighbour(let address): wanted.neighbours[address] == nil
                case .deleteForwarding(let hardware): wanted.forwardings[hardware] == nil
                }
            #expect(isNeeded, "seed \(seed): \(step)")
        }
    }
}

@Suite struct `The diagnosis of the overlay` {
    private typealias Answers = OverlayDiagnosis.Answers

    private static let conditions = OverlayDiagnosis.Conditions(
        overlay: OverlayEnd(address: address("192.0.2.1")), link: "up0", linkMTU: 1500, mtu: 1450)

    @Test(
        arguments: [
            ([.underlay, .underlayWhole, .overlay, .overlayWhole, .checksum], .healthy),
            // Networks that drop ICMP between nodes are none of the overlay's business.
            ([.overlay, .overlayWhole, .checksum], .healthy), ([.overlayWhole, .checksum], .healthy),
            ([], .unreachable), ([.underlay], .blockedUDP), ([.underlay, .underlayWhole], .blockedUDP),
            ([.underlay, .overlay], .wrongMTU), ([.underlay, .underlayWhole, .overlay], .wrongMTU),
            ([.underlay, .overlay, .checksum], .wrongMTU), ([.overlay, .overlayWhole], .brokenOffload),
        ] as [(OverlayDiagnosis.Answers, OverlayDiagnosis.Finding)])
    func `answers decide the finding`(answers: OverlayDiagnosis.Answers, finding: OverlayDiagnosis.Finding) {
        let b = remote("b", "192.0.2.2", "10.210.2.0/24")
        let found = OverlayDiagnosis(b, answers, isWired: true, others: [b], Self.conditions)
        #expect(found.finding == finding)
        #expect((found.reason == nil) == (finding == .healthy))
        #expect(found.reason?.message.contains("node `b`") != false)
    }

    @Test func `what this node knows by itself comes first`() {
        let all: Answers = [.underlay, .underlayWhole, .overlay, .overlayWhole, .checksum]
        let b = remote("b", "192.0.2.2", "10.210.2.0/24")
        func finding(_ remote: RemoteNode, wired: Bool = true, _ others: RemoteNode...) -> OverlayDiagnosis.Finding {
            OverlayDiagnosis(remote, all, isWired: wired, others: others + [remote], Self.conditions).finding
        }
        #expect(finding(b, remote("c", "192.0.2.3", "10.210.3.0/24")) == .healthy)
        #expect(finding(b, wired: false) == .missingRoute)
        #expect(finding(b, remote("c", "192.0.2.2", "10.210.3.0/24")) == .duplicateAddress)
        #expect(finding(b, remote("c", "192.0.2.3", "10.210.2.0/25")) == .duplicateAddress)
        #expect(finding(remote("b", "192.0.2.1", "10.210.2.0/24")) == .duplicateAddress)
    }

    @Test func `requests carry a right checksum`() {
        for count in [8, 9, 64, 1430] {
            let bytes = EchoPacket.request(identifier: 0x1234, sequence: 4, bytes: count)
            #expect(bytes.count == count)
            // With the checksum in place the sum is all ones (RFC 1071).
            #expect(EchoPacket.checksum(bytes) == 0)
        }
    }

    @Test func `packets are read as they are, and cut or foreign ones not at all`() {
        func header(_ number: UInt8, from: [UInt8], to: [UInt8]) -> [UInt8] {
            [0x45, 0, 0, 0, 0, 0, 0, 0, 64, number, 0, 0] + from + to
        }
        let reply = header(1, from: [10, 210, 2, 1], to: [10, 210, 1, 1]) + [0, 0, 9, 9, 0x12, 0x34, 0, 4]
        #expect(
            EchoPacket(reply[...]) == .reply(from: address("10.210.2.1"), identifier: 0x1234, sequence: 4))
        let refused =
            header(1, from: [10, 210, 2, 1], to: [10, 210, 1, 1]) + [3, 3, 9, 9, 0, 0, 0, 0]
            + header(17, from: [10, 210, 1, 1], to: [10, 210, 2, 1]) + [0x80, 0, 0, 1, 0, 8, 0, 0]
        #expect(EchoPacket(refused[...]) == .refusal(by: address("10.210.2.1"), port: 1))
        for whole in [reply, refused] {
            for count in 0..<whole.count { #expect(EchoPacket(whole[..<count]) == nil, "\(count) bytes") }
        }
        var random = SeededRandom(seed: 1)
        for _ in 0..<2000 {
            let noise = (0..<Int.random(in: 0...80, using: &random)).map { _ in
                UInt8.random(in: 0...255, using: &random)
            }
            if let packet = EchoPacket(noise[...]) { #expect(noise[9] == 1, "\(packet)") }
        }
    }
}
