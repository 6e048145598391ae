// SPDX-License-Identifier: Apache-2.0
import Glibc
import Model
import Synchronization
import TestSupport
import Testing

@testable import ContainerNetwork

private let loopback = IPv4Address(value: 127 << 24 | 1)

private func table(_ services: BalancedService..., index: UInt64 = 1) -> BalancingTable {
    BalancingTable(index: index, services: services.sorted { $0.vip < $1.vip })
}

private func published(_ host: UInt16, _ container: UInt16, _ transport: PortProtocol = .tcp) -> PublishedPort {
    PublishedPort(hostPort: host, containerPort: container, protocol: transport)
}

final class Tally: Sendable {
    let counts = Mutex((tries: 0, failures: [String](), stop: false))
}

/// How often each server answers `count` new connections.
private func answers(
    _ count: Int,
    _ kind: Socket.Kind = .tcp,
    from namespace: String,
    _ address: IPv4Address,
    _ port: UInt16
) throws -> [String: Int] {
    var found: [String: Int] = [:]
    for _ in 0..<count { found[try ask(kind, from: namespace, address, port).server, default: 0] += 1 }
    return found
}

/// One after the other: they count what the process has open, and share two cores.
@Suite(.serialized, .enabled(if: TestNode.canRun, TestNode.reason)) enum RealNetwork {}

extension RealNetwork {
    @Suite struct `The network of a node` {
        @Test func `containers reach each other and see who it is`() async throws {
            try await TestNode.with { node, networking in
                let (a, b) = (try await node.attach(networking, "a", 5), try await node.attach(networking, "b", 6))
                let servers = [
                    try EchoServer("b", in: b.namespace, 80), try EchoServer("b", .udp, in: b.namespace, 80),
                ]
                for kind in [Socket.Kind.tcp, .udp] {
                    let answer = try ask(kind, from: a.namespace, b.address, 80)
                    #expect(answer.server == "b" && answer.client == "\(a.address)")
                    #expect(try ask(kind, from: node.inside, b.address, 80).client == "\(node.network.subnet[1])")
                }
                withExtendedLifetime(servers) {}
            }
        }

        @Test func `a VIP balances in exact turn on any port, from containers and from the node`() async throws {
            try await TestNode.with { node, networking in
                let client = try await node.attach(networking, "client", 9)
                var servers: [EchoServer] = []
                for host in 5...7 {
                    let container = try await node.attach(networking, TaskID("s\(host)"), host)
                    for kind in [Socket.Kind.tcp, .udp] {
                        for port in [UInt16(80), 9999] {
                            servers.append(try EchoServer("s\(host)", kind, in: container.namespace, port))
                        }
                    }
                }
                let endpoints = (5...7).map { node.network.subnet[$0] }
                _ = try await networking.program(
                    table(BalancedService(vip: node.vip(2), endpoints: endpoints, ports: []))
                )
                for place in [client.namespace, node.inside] {
                    for kind in [Socket.Kind.tcp, .udp] {
                        for port in [UInt16(80), 9999] {
                            let found = try answers(12, kind, from: place, node.vip(2), port)
                            #expect(found == ["s5": 4, "s6": 4, "s7": 4], "\(kind) \(port) from \(place)")
                        }
                    }
                }
                #expect(try ask(from: client.namespace, node.vip(2), 80).client == "\(client.address)")
                withExtendedLifetime(servers) {}
            }
        }

        @Test func `a VIP answers pings`() async throws {
            try await TestNode.with { node, networking in
                let (a, b) = (try await node.attach(networking, "a", 5), try await node.attach(networking, "b", 6))
                _ = try await networking.program(
                    table(BalancedService(vip: node.vip(2), endpoints: [b.address], ports: []))
                )
                try waitForWay(from: a.namespace, to: b.address)
                let socket = try Socket(.ping, in: a.namespace)
                try socket.connect(node.vip(2), 0)
                // Echo request; the kernel fills in identifier and checksum.
                try socket.send("\u{8}\u{0}\u{0}\u{0}\u{0}\u{0}\u{0}\u{1}")
                #expect(try socket.receive().utf8.first == 0)
            }
        }

        @Test func `a container reaches itself through its service`() async throws {
            try await TestNode.with { node, networking in
                let a = try await node.attach(networking, "a", 5)
                let server = try EchoServer("a", in: a.namespace, 80)
                let service = BalancedService(vip: node.vip(2), endpoints: [a.address], ports: [published(8080, 80)])
                #expect(try await networking.program(table(service)) == [])
                #expect(try ask(from: a.namespace, node.vip(2), 80).client == "\(node.network.subnet[1])")
                #expect(try ask(from: a.namespace, TestNode.nodeAddress, 8080).server == "a")
                withExtendedLifetime(server) {}
            }
        }

        @Test(arguments: [PortProtocol.tcp, .udp])
        func `a published port is reached from outside, from the node and from containers`(
            transport: PortProtocol
        ) async throws {
            try await TestNode.with { node, networking in
                let kind = transport == .tcp ? Socket.Kind.tcp : .udp
                let (a, b) = (try await node.attach(networking, "a", 5), try await node.attach(networking, "b", 6))
                let other = try await node.attach(networking, "other", 7)
                let servers = [
                    try EchoServer("a", kind, in: a.namespace, 80), try EchoServer("b", kind, in: b.namespace, 80),
                ]
                let service = BalancedService(
                    vip: node.vip(2),
                    endpoints: [a.address, b.address],
                    ports: [published(8080, 80, transport)]
                )
                #expect(try await networking.program(table(service)) == [])
                let places: [(String, IPv4Address)] = [
                    (node.outside, TestNode.nodeAddress), (node.inside, TestNode.nodeAddress), (node.inside, loopback),
                    (other.namespace, TestNode.nodeAddress), (other.namespace, node.network.subnet[1]),
                    (a.namespace, TestNode.nodeAddress),
                ]
                for (place, address) in places {
                    #expect(
                        try answers(6, kind, from: place, address, 8080) == ["a": 3, "b": 3], "\(address) from \(place)"
                    )
                }
                let client = try ask(kind, from: node.outside, TestNode.nodeAddress, 8080).client
                #expect(client == "\(TestNode.outsideAddress)")
                withExtendedLifetime(servers) {}
            }
        }

        @Test(arguments: [PortProtocol.tcp, .udp])
        func `a port of the node alone leads to its task, then to the next one`(transport: PortProtocol) async throws {
            try await TestNode.with { node, networking in
                let kind = transport == .tcp ? Socket.Kind.tcp : .udp
                let (a, b) = (try await node.attach(networking, "a", 5), try await node.attach(networking, "b", 6))
                let servers = [
                    try EchoServer("a", kind, in: a.namespace, 80), try EchoServer("b", kind, in: b.namespace, 80),
                ]
                for (name, endpoint) in [("a", a.address), ("b", b.address)] {
                    let pin = PinnedPort(port: published(8080, 80, transport), endpoint: endpoint)
                    let wanted = BalancingTable(index: 1, services: [], pinned: [pin])
                    #expect(try await networking.program(wanted) == [])
                    for (place, address) in [(node.outside, TestNode.nodeAddress), (node.inside, loopback)] {
                        #expect(try answers(4, kind, from: place, address, 8080) == [name: 4], "from \(place)")
                    }
                }
                withExtendedLifetime(servers) {}
            }
        }

        @Test func `without an endpoint everything is refused at once`() async throws {
            try await TestNode.with { node, networking in
                let a = try await node.attach(networking, "a", 5)
                let service = BalancedService(
                    vip: node.vip(2),
                    endpoints: [],
                    ports: [published(8080, 80), published(8080, 80, .udp)]
                )
                #expect(try await networking.program(table(service)) == [])
                for kind in [Socket.Kind.tcp, .udp] {
                    let tries: [(String, IPv4Address, UInt16)] = [
                        (a.namespace, node.vip(2), 80), (node.inside, node.vip(2), 80),
                        // A service there never was, or is no more.
                        (a.namespace, node.vip(3), 80),
                        (node.outside, TestNode.nodeAddress, 8080), (a.namespace, TestNode.nodeAddress, 8080),
                        (node.inside, loopback, 8080),
                    ]
                    for (place, address, port) in tries {
                        let (errno, time) = try refusal(kind, from: place, address, port)
                        // A datagram refused where it was sent never leaves `send`: the kernel says so in this way.
                        let isLocalDatagram = kind == .udp && place == node.inside && address == node.vip(2)
                        #expect(
                            errno == (isLocalDatagram ? EPERM : ECONNREFUSED),
                            "\(kind) \(address):\(port) from \(place)")
                        #expect(time < .milliseconds(500), "\(kind) \(address):\(port) from \(place)")
                    }
                }
            }
        }

        @Test func `an endpoint that leaves keeps its TCP connections until it is detached, not its UDP flows`()
            async throws
        {
            try await TestNode.with { node, networking in
                let client = try await node.attach(networking, "client", 9)
                let (a, b) = (try await node.attach(networking, "a", 5), try await node.attach(networking, "b", 6))
                var servers: [EchoServer] = []
                for (name, container) in [("a", a), ("b", b)] {
                    for kind in [Socket.Kind.tcp, .udp] {
                        servers.append(try EchoServer(name, kind, in: container.namespace, 80))
                    }
                }
                let ports = [published(8080, 80), published(8080, 80, .udp)]
                func program(_ endpoints: [IPv4Address], _ index: UInt64) async throws {
                    let service = BalancedService(vip: node.vip(2), endpoints: endpoints, ports: ports)
                    #expect(try await networking.program(table(service, index: index)) == [])
                }
                try await program([a.address], 1)
                let goals: [(String, IPv4Address, UInt16)] = [
                    (client.namespace, node.vip(2), 80), (node.outside, TestNode.nodeAddress, 8080),
                    (node.inside, loopback, 8080),
                ]
                func open(_ kind: Socket.Kind) throws -> [Socket] {
                    try goals.map { place, address, port in
                        let socket = try Socket(kind, in: place)
                        try socket.connect(address, port)
                        return socket
                    }
                }
                let (streams, datagrams) = (try open(.tcp), try open(.udp))
                for socket in streams + datagrams { #expect(try socket.exchange("1").server == "a") }

                try await program([b.address], 2)
                for socket in streams { #expect(try socket.exchange("2").server == "a") }
                for socket in datagrams { #expect(try socket.exchange("2").server == "b") }
                for (place, address, port) in goals {
                    #expect(try answers(4, from: place, address, port) == ["b": 4])
                }

                #expect(try node.flows(a.address) > 0)
                try await networking.detach(task: a.task)
                #expect(try node.flows(a.address) == 0)
                for socket in streams { #expect(throws: (any Error).self) { try socket.exchange("3") } }
                withExtendedLifetime(servers) {}
            }
        }

        @Test func `a forged source address gets nowhere`() async throws {
            try await TestNode.with { node, networking in
                let (a, b) = (try await node.attach(networking, "a", 5), try await node.attach(networking, "b", 6))
                let server = try EchoServer("b", in: b.namespace, 80)
                try node.ip("addr add 10.210.1.77/32 dev eth0", in: a.namespace)
                let forged = try Socket(.tcp, in: a.namespace)
                try forged.bind(node.network.subnet[77], 0)
                #expect(throws: NetworkError.self) { try forged.connect(b.address, 80) }
                #expect(try ask(from: a.namespace, b.address, 80).client == "\(a.address)")
                withExtendedLifetime(server) {}
            }
        }

        @Test func `what leaves the node has its address`() async throws {
            try await TestNode.with { node, networking in
                let a = try await node.attach(networking, "a", 5)
                let servers = [
                    try EchoServer("out", in: node.outside, 80), try EchoServer("out", .udp, in: node.outside, 80),
                ]
                for kind in [Socket.Kind.tcp, .udp] {
                    #expect(
                        try ask(kind, from: a.namespace, TestNode.outsideAddress, 80).client
                            == "\(TestNode.nodeAddress)")
                }
                withExtendedLifetime(servers) {}
            }
        }

        @Test func `a program of the node is reached from a container, names too`() async throws {
            try await TestNode.with { node, networking in
                let a = try await node.attach(networking, "a", 5)
                let service = BalancedService(
                    vip: node.vip(2), endpoints: [a.address], ports: [published(53, 53, .udp)])
                let names = try EchoServer("names", .udp, in: node.inside, 53, address: AddressRanges.nameServer)
                #expect(try await networking.program(table(service)) == [published(53, 53, .udp)])
                #expect(try ask(.udp, from: a.namespace, AddressRanges.nameServer, 53).server == "names")
                #expect(try ask(.udp, from: a.namespace, AddressRanges.nameServer, 53).client == "\(a.address)")
                withExtendedLifetime(names) {}
            }
        }

        @Test func `a port of the host stays with the host until it is free`() async throws {
            try await TestNode.with { node, networking in
                let a = try await node.attach(networking, "a", 5)
                let server = try EchoServer("a", in: a.namespace, 80)
                let ports = [published(8080, 80), published(8081, 80)]
                let service = BalancedService(vip: node.vip(2), endpoints: [a.address], ports: ports)
                do {
                    let host = try EchoServer("host", in: node.inside, 8080, address: loopback)
                    #expect(await networking.portsInUse(ports) == [published(8080, 80)])
                    #expect(try await networking.program(table(service)) == [published(8080, 80)])
                    #expect(try ask(from: node.inside, loopback, 8080).server == "host")
                    #expect(try ask(from: node.outside, TestNode.nodeAddress, 8081).server == "a")
                    withExtendedLifetime(host) {}
                }
                try await eventually { try await networking.program(table(service)).isEmpty }
                #expect(try ask(from: node.outside, TestNode.nodeAddress, 8080).server == "a")
                // Ours now: nobody else gets it, and it is free again when it is not published any more.
                #expect(throws: NetworkError.self) { try Socket(.tcp, in: node.inside).bind(loopback, 8080) }
                _ = try await networking.program(.empty)
                try Socket(.tcp, in: node.inside).bind(loopback, 8080)
                withExtendedLifetime(server) {}
            }
        }

        @Test func `the next daemon takes over without one lost connection`() async throws {
            try await TestNode.with { node, networking in
                let client = try await node.attach(networking, "client", 9)
                let a = try await node.attach(networking, "a", 5)
                let server = try EchoServer("a", in: a.namespace, 80)
                let service = BalancedService(vip: node.vip(2), endpoints: [a.address], ports: [published(8080, 80)])
                _ = try await networking.program(table(service))
                let open = try Socket(.tcp, in: client.namespace)
                try open.connect(node.vip(2), 80)

                let tally = Tally()
                let goal = node.vip(2)
                try await withThrowingTaskGroup(of: Void.self) { group in
                    group.addTask {
                        while !tally.counts.withLock({ $0.stop }) {
                            do { _ = try ask(from: client.namespace, goal, 80) } catch {
                                tally.counts.withLock { $0.failures.append("\(error)") }
                            }
                            tally.counts.withLock { $0.tries += 1 }
                            await Task.yield()
                        }
                    }
                    defer { tally.counts.withLock { $0.stop = true } }
                    for index in 0..<25 {
                        let next = try node.makeNetworking()
                        try await next.prepare(node.network)
                        #expect(try await next.attachedTasks() == ["a", "client"])
                        let extra = try await next.attach(
                            AttachmentRequest(task: "extra", address: node.network.subnet[20]))
                        #expect(extra.interface == "eth0")
                        let other = BalancedService(
                            vip: node.vip(3), endpoints: index % 2 == 0 ? [a.address] : [], ports: [])
                        _ = try await next.program(table(service, other, index: UInt64(index)))
                        try await next.detach(task: "extra")
                    }
                    try await eventually { tally.counts.withLock { $0.tries } > 100 }
                }
                #expect(tally.counts.withLock { $0.failures } == [])
                #expect(try open.exchange("still").server == "a")
                _ = try await networking.program(table(service))
                withExtendedLifetime(server) {}
            }
        }

        @Test func `rules somebody removed are put back with the next change`() async throws {
            try await TestNode.with { node, networking in
                let a = try await node.attach(networking, "a", 5)
                let server = try EchoServer("a", in: a.namespace, 80)
                let service = BalancedService(vip: node.vip(2), endpoints: [a.address], ports: [])
                _ = try await networking.program(table(service))
                try node.run("/usr/sbin/nft", ["delete", "table", "inet", "hivemind"])
                let more = BalancedService(vip: node.vip(3), endpoints: [a.address], ports: [])
                _ = try await networking.program(table(service, more))
                #expect(try ask(from: node.inside, node.vip(2), 80).server == "a")
                withExtendedLifetime(server) {}
            }
        }
    }
}

/// Waits for a condition, at most five seconds.
func eventually(_ condition: () async throws -> Bool) async throws {
    let clock = ContinuousClock(), deadline = clock.now + .seconds(5)
    while clock.now < deadline {
        if try await condition() { return }
        await Task.yield()
    }
    throw TestFailure("a condition did not come true in five seconds")
}
