// SPDX-License-Identifier: Apache-2.0
import Glibc
import Model
import Synchronization
import TestSupport
import Testing

@testable import ContainerNetwork

extension RealNetwork {
    @Suite struct `The overlay` {
        @Test func `containers of every node reach those of every other, and see who it is`() async throws {
            try await JoinedNodes.with(3) { cluster in
                var containers: [Container] = []
                var servers: [EchoServer] = []
                for index in 0..<3 {
                    let container = try await cluster.attach(index, TaskID("c\(index)"), 5)
                    containers.append(container)
                    for kind in [Socket.Kind.tcp, .udp] {
                        servers.append(try EchoServer("c\(index)", kind, in: container.namespace, 80))
                    }
                }
                for kind in [Socket.Kind.tcp, .udp] {
                    for (from, to) in (0..<3).flatMap({ from in (0..<3).map { (from, $0) } }) where from != to {
                        let answer = try ask(kind, from: containers[from].namespace, containers[to].address, 80)
                        #expect(answer.server == "c\(to)" && answer.client == "\(containers[from].address)")
                        let node = cluster.nodes[from]
                        #expect(
                            try ask(kind, from: node.inside, containers[to].address, 80).client
                                == "\(node.network.subnet[1])")
                    }
                }
                // Nothing of the encapsulated packets is tracked, so nothing of them can be translated.
                for node in cluster.nodes {
                    for index in 0..<3 { #expect(try node.flows(JoinedNodes.address(index)) == 0) }
                }
                withExtendedLifetime(servers) {}
            }
        }

        @Test(arguments: [1500, 1400, 9000])
        func `packets of the whole MTU arrive in one piece, larger ones are refused where they are made`(
            underlay: Int
        ) async throws {
            try await JoinedNodes.with(2, mtu: underlay) { cluster in
                let (a, b) = (try await cluster.attach(0, "a", 5), try await cluster.attach(1, "b", 6))
                let listener = try Socket(.udp, in: b.namespace)
                try listener.bind(b.address, 80)
                let whole = underlay - 50 - 28
                for place in [a.namespace, cluster.nodes[0].inside] {
                    try waitForWay(from: place, to: b.address)
                    let sender = try Socket(.udp, in: place)
                    sender.forbidFragments()
                    try sender.connect(b.address, 80)
                    try sender.send(bytes: whole)
                    #expect(try listener.receiveCount() == whole)
                    let error = #expect(throws: NetworkError.self) { try sender.send(bytes: whole + 1) }
                    #expect(error?.errno == EMSGSIZE)
                }
                let stream = try Socket(.tcp, in: b.namespace)
                try stream.bind(b.address, 80)
                let listening = stream.listening()
                let client = try Socket(.tcp, in: a.namespace)
                client.forbidFragments()
                try client.connect(b.address, 80)
                let server = try listening.accepted()
                let total = 4 << 20
                pthread_detach(try Threads.start { try? client.send(bytes: total) })
                var received = 0
                while received < total {
                    let count = try server.receiveCount()
                    if count == 0 { break }
                    received += count
                }
                #expect(received == total)
            }
        }

        @Test func `a service with endpoints on other nodes is reached from containers, nodes and outside`()
            async throws
        {
            try await JoinedNodes.with(3) { cluster in
                let client = try await cluster.attach(0, "client", 9)
                let (a, b) = (try await cluster.attach(1, "a", 5), try await cluster.attach(2, "b", 5))
                var servers: [EchoServer] = []
                for (name, container) in [("a", a), ("b", b)] {
                    for kind in [Socket.Kind.tcp, .udp] {
                        servers.append(try EchoServer(name, kind, in: container.namespace, 80))
                    }
                }
                let ports = [PortProtocol.tcp, .udp].map {
                    PublishedPort(hostPort: 8080, containerPort: 80, protocol: $0)
                }
                let vip = cluster.nodes[0].vip(2)
                let service = BalancedService(vip: vip, endpoints: [a.address, b.address], ports: ports)
                for node in cluster.nodes {
                    #expect(try await node.networking.program(BalancingTable(index: 1, services: [service])) == [])
                }
                // Somebody outside the cluster, on the switch.
                try cluster.nodes[0].ip("addr add 192.0.2.254/24 dev br0", in: cluster.underlay)
                let node = cluster.nodes[0]
                let goals: [(String, IPv4Address, UInt16)] = [
                    (client.namespace, vip, 80), (node.inside, vip, 80),
                    (node.inside, IPv4Address(value: 127 << 24 | 1), 8080),
                    (node.inside, JoinedNodes.address(0), 8080), (client.namespace, JoinedNodes.address(0), 8080),
                    (cluster.underlay, JoinedNodes.address(0), 8080), (client.namespace, JoinedNodes.address(1), 8080),
                    // An endpoint's own port, through a node that has none of it or another.
                    (a.namespace, vip, 80), (a.namespace, cluster.nodes[0].network.subnet[1], 8080),
                    (a.namespace, JoinedNodes.address(2), 8080),
                ]
                for kind in [Socket.Kind.tcp, .udp] {
                    for (place, address, port) in goals {
                        var found: Set<String> = []
                        for _ in 0..<4 { found.insert(try ask(kind, from: place, address, port).server) }
                        #expect(found == ["a", "b"], "\(kind) \(address):\(port) from \(place)")
                    }
                    #expect(try ask(kind, from: client.namespace, vip, 80).client == "\(client.address)")
                }
                withExtendedLifetime(servers) {}
            }
        }

        @Test func `a node that leaves is gone from the others, one that moves is found again`() async throws {
            try await JoinedNodes.with(3) { cluster in
                let (a, b) = (try await cluster.attach(0, "a", 5), try await cluster.attach(1, "b", 5))
                let server = try EchoServer("b", in: b.namespace, 80)
                let first = cluster.nodes[0]
                let before = try OverlayInKernel.look(first)
                #expect(before.forwardings.count == 2 && before.neighbours.count == 2 && before.routes.count == 2)

                #expect(try await first.networking.connect([cluster.others(0)[1]]) == [])
                let without = try OverlayInKernel.look(first)
                #expect(without.device == before.device)
                #expect(without.routes.map(\.destination) == [cluster.nodes[2].network.subnet])
                #expect(without.forwardings.compactMap(\.address) == [JoinedNodes.address(2)])
                #expect(without.neighbours.compactMap(\.address) == [cluster.nodes[2].network.subnet.network])
                #expect(throws: NetworkError.self) { try ask(from: a.namespace, b.address, 80) }

                let moved = IPv4Address(value: 192 << 24 | 2 << 8 | 77)
                try cluster.nodes[1].ip("addr del \(JoinedNodes.address(1))/24 dev up0")
                try cluster.nodes[1].ip("addr add \(moved)/24 dev up0")
                var network = cluster.nodes[1].network
                network.overlay = OverlayEnd(address: moved)
                try await cluster.nodes[1].networking.prepare(network)
                #expect(try await cluster.nodes[1].networking.connect(cluster.others(1)) == [])
                var others = cluster.others(0)
                others[0].address = moved
                #expect(try await first.networking.connect(others) == [])
                let after = try OverlayInKernel.look(first)
                #expect(Set(after.forwardings.compactMap(\.address)) == [moved, JoinedNodes.address(2)])
                #expect(after.routes == before.routes && after.neighbours == before.neighbours)
                #expect(try ask(from: a.namespace, b.address, 80).client == "\(a.address)")
                withExtendedLifetime(server) {}
            }
        }

        @Test func `what somebody changed or removed by hand is put right by the next call`() async throws {
            try await JoinedNodes.with(2) { cluster in
                let (a, b) = (try await cluster.attach(0, "a", 5), try await cluster.attach(1, "b", 5))
                let server = try EchoServer("b", in: b.namespace, 80)
                let node = cluster.nodes[0]
                let (others, peer) = (cluster.others(0), "02:68:0a:d2:02:00")
                let before = try OverlayInKernel.look(node).withoutIndex
                let routes = try node.routes().count
                let vx = "type vxlan id 4096 local 192.0.2.1 dev up0 dstport 4789 nolearning"
                let remade = "link set hm.vx address 02:68:0a:d2:01:00 mtu 1450 up"
                let damages: [[String]] = [
                    ["link del hm.vx"], ["link set hm.vx down"], ["link set hm.vx mtu 1000"],
                    ["link set hm.vx down", "link set hm.vx address 02:00:00:00:00:07", "link set hm.vx up"],
                    ["link del hm.vx", "link add hm.vx type bridge"],
                    ["link del hm.vx", "link add hm.vx \(vx)"],
                    ["link del hm.vx", "link add hm.vx \(vx.replacing("4096", with: "4097"))", remade],
                    ["link del hm.vx", "link add hm.vx \(vx.replacing("4789", with: "8472"))", remade],
                    ["link del hm.vx", "link add hm.vx \(vx.replacing("nolearning", with: "learning"))", remade],
                    ["link del hm.vx", "link add hm.vx \(vx.replacing(" local 192.0.2.1", with: ""))", remade],
                    ["link del hm.vx", "link add hm.vx \(vx.replacing(" dev up0", with: ""))", remade],
                    ["link del hm.vx", "link add hm.vx \(vx) remote 192.0.2.9", remade],
                    ["link del hm.vx", "link add hm.vx \(vx) noudpcsum", remade],
                    ["link del hm.vx", "link add hm.vx \(vx) l3miss", remade],
                    ["route del 10.210.2.0/24"],
                    ["route replace 10.210.2.0/24 via 10.210.9.0 dev hm.vx onlink proto 111"],
                    ["route replace blackhole 10.210.2.0/24 proto 111"],
                    ["route del 10.210.2.0/24", "route add unreachable 10.210.2.0/24 proto 111"],
                    ["route add 10.210.2.0/24 via 192.0.2.9 proto 111 metric 7"],
                    ["route add 10.210.9.0/24 via 10.210.9.0 dev hm.vx onlink proto 111"],
                    ["route add blackhole 10.210.8.0/24 proto 111"],
                    ["neigh del 10.210.2.0 dev hm.vx"],
                    ["neigh replace 10.210.2.0 lladdr 02:00:00:00:00:01 dev hm.vx nud permanent"],
                    ["neigh replace 10.210.2.0 lladdr \(peer) dev hm.vx nud stale"],
                    ["neigh replace 10.210.9.0 lladdr 02:00:00:00:00:01 dev hm.vx nud permanent"],
                    ["bridge fdb del \(peer) dev hm.vx self"],
                    ["bridge fdb replace \(peer) dev hm.vx dst 192.0.2.9 self permanent"],
                    ["bridge fdb replace \(peer) dev hm.vx dst 192.0.2.2 port 9 self permanent"],
                    ["bridge fdb replace \(peer) dev hm.vx dst 192.0.2.2 vni 9 self permanent"],
                    [
                        "bridge fdb append 00:00:00:00:00:00 dev hm.vx dst 192.0.2.8 self permanent",
                        "bridge fdb append 00:00:00:00:00:00 dev hm.vx dst 192.0.2.9 self permanent",
                    ],
                    ["bridge fdb add 02:00:00:00:00:01 dev hm.vx dst 192.0.2.2 self permanent"],
                ]
                for damage in damages {
                    for command in damage {
                        let words = command.split(separator: " ").map(String.init)
                        if words[0] == "bridge" {
                            try node.run("/usr/sbin/bridge", Array(words.dropFirst()))
                        } else {
                            try node.ip(command)
                        }
                    }
                    #expect(try await node.networking.connect(others) == [], "\(damage)")
                    #expect(try OverlayInKernel.look(node).withoutIndex == before, "\(damage)")
                    #expect(try node.routes().count == routes, "\(damage)")
                    #expect(try ask(from: a.namespace, b.address, 80).client == "\(a.address)", "\(damage)")
                }
                withExtendedLifetime(server) {}
            }
        }

        @Test func `what others have on the node is not touched, and not fought with`() async throws {
            try await JoinedNodes.with(2) { cluster in
                let node = cluster.nodes[0]
                try node.ip("link add theirs type vxlan id 7 local 192.0.2.1 dev up0 dstport 4789 nolearning")
                try node.ip("link set theirs up")
                try node.ip("route add 10.99.0.0/16 via 192.0.2.9 proto static")
                try node.ip("neigh add 192.0.2.9 lladdr 02:00:00:00:00:01 dev up0 nud permanent")
                try node.run(
                    "/usr/sbin/bridge",
                    "fdb add 02:00:00:00:00:09 dev theirs dst 192.0.2.9 self permanent"
                        .split(separator: " ").map(String.init))
                func others() throws -> (Set<Route>, [String], Int, Int) {
                    let links = try node.links()
                    return try NetworkNamespace.run(in: node.inside) { () throws(NetworkError) in
                        let socket = try NetlinkSocket()
                        let up = try socket.link(named: "up0")?.index ?? 0
                        let theirs = try socket.link(named: "theirs")?.index ?? 0
                        return (
                            Set(try socket.routes().filter { !$0.isOurs }), links,
                            try socket.neighbours(AF_INET, link: up).filter(\.isPermanent).count,
                            try socket.neighbours(AF_BRIDGE, link: theirs).count
                        )
                    }
                }
                let before = try others()
                #expect(before.2 == 1 && before.3 == 1)
                #expect(try await node.networking.connect(cluster.others(0)) == [])
                #expect(try await node.networking.connect([]) == [])
                #expect(try others() == before)

                // In the way of the next list: nothing is changed, and the route is named.
                try node.ip("route add 10.210.2.128/25 via 192.0.2.9")
                let untouched = try OverlayInKernel.look(node)
                let error = await #expect(throws: NetworkError.self) {
                    try await node.networking.connect(cluster.others(0))
                }
                #expect(error?.code == .overlap)
                #expect(error?.message.contains("10.210.2.128/25") == true)
                #expect(try OverlayInKernel.look(node) == untouched)
                try node.ip("route del 10.210.2.128/25")
            }
        }

        @Test func `a device or program that has the port is named`() async throws {
            try await JoinedNodes.with(1) { cluster in
                let node = cluster.nodes[0]
                try node.ip("link del hm.vx")
                try node.ip("link add theirs type vxlan id 4096 local 192.0.2.1 dev up0 dstport 4789")
                let taken = await #expect(throws: NetworkError.self) { try await node.networking.connect([]) }
                #expect(taken?.code == .alreadyExists)
                #expect(taken?.message.contains("theirs") == true)
                #expect(taken?.hint?.contains("ip link delete theirs") == true)
                try node.ip("link del theirs")

                do {
                    let socket = try Socket(.udp, in: node.inside)
                    try socket.bind(IPv4Address(value: 0), 4789)
                    let busy = await #expect(throws: NetworkError.self) { try await node.networking.connect([]) }
                    #expect(busy?.code == .busy)
                    #expect(busy?.message.contains("4789") == true)
                    #expect(busy?.hint?.contains("ss -ulnp") == true)
                    #expect(try !node.links().contains(OverlayDevice.name))
                    withExtendedLifetime(socket) {}
                }
                #expect(try await node.networking.connect([]) == [])
                #expect(try node.links().contains(OverlayDevice.name))
            }
        }

        @Test func `a node without the address it is known by says so, and serves its own containers`() async throws {
            try await JoinedNodes.with(1) { cluster in
                let node = cluster.nodes[0]
                try node.ip("addr del 192.0.2.1/24 dev up0")
                let error = await #expect(throws: NetworkError.self) { try await node.networking.prepare(node.network) }
                #expect(error?.code == .notFound)
                #expect(error?.message.contains("192.0.2.1") == true)
                let a = try await cluster.attach(0, "a", 5)
                let server = try EchoServer("a", in: a.namespace, 80)
                #expect(try ask(from: node.inside, a.address, 80).server == "a")
                try node.ip("addr add 192.0.2.1/24 dev up0")
                #expect(try await node.networking.connect([]) == [])
                withExtendedLifetime(server) {}
            }
        }

        @Test func `a hundred nodes are connected, and again without a change`() async throws {
            try await JoinedNodes.with(1) { cluster in
                let node = cluster.nodes[0]
                let nodes = (2...101).map { number in
                    RemoteNode(
                        id: NodeID("n\(number)"), address: IPv4Address(value: 192 << 24 | 2 << 8 | UInt32(number)),
                        subnet: IPv4Subnet(AddressRanges.standard.containers[256 * number], prefix: 24))
                }
                let clock = ContinuousClock()
                let first = try await clock.measure { _ = try await node.networking.connect(nodes) }
                let made = try OverlayInKernel.look(node)
                #expect(Set(made.forwardings.compactMap(\.address)) == Set(nodes.map(\.address)))
                #expect(Set(made.neighbours.compactMap(\.address)) == Set(nodes.map(\.subnet.network)))
                #expect(Set(made.routes.map(\.destination)) == Set(nodes.map(\.subnet)))
                let again = try await clock.measure { _ = try await node.networking.connect(nodes) }
                #expect(try OverlayInKernel.look(node) == made)
                print("overlay: 100 nodes connected in \(first), compared in \(again)")
                #expect(try await node.networking.connect(Array(nodes[..<50])) == [])
                let half = try OverlayInKernel.look(node)
                #expect((half.forwardings.count, half.neighbours.count, half.routes.count) == (50, 50, 50))
                #expect(half.device == made.device)
            }
        }

        @Test func `containers follow the MTU of the underlay, and of the overlay when it comes`() async throws {
            try await JoinedNodes.with(1, mtu: 9000) { cluster in
                let node = cluster.nodes[0]
                func mtus(_ container: Container) throws -> [Int?] {
                    let outside = try NetworkNamespace.run(in: node.inside) { () throws(NetworkError) in
                        let socket = try NetlinkSocket()
                        return [
                            try socket.link(named: "hm\(container.task)")?.mtu,
                            try socket.link(named: OverlayDevice.name)?.mtu,
                        ]
                    }
                    let inside = try NetworkNamespace.run(in: container.namespace) { () throws(NetworkError) in
                        try NetlinkSocket().link(named: Attachment.interface)?.mtu
                    }
                    return [inside] + outside
                }
                let a = try await cluster.attach(0, "a", 5)
                #expect(try mtus(a) == [8950, 8950, 8950])
                try node.ip("link set up0 mtu 1400")
                #expect(try await node.networking.connect([]) == [])
                #expect(try mtus(a) == [1350, 1350, 1350])
                try node.ip("link set up0 mtu 1500")
                try await node.networking.prepare(node.network)
                #expect(try mtus(a) == [1450, 1450, 1450])

                var alone = node.network
                alone.overlay = nil
                try await node.networking.prepare(alone)
                let b = try await cluster.attach(0, "b", 6)
                #expect(try mtus(b) == [1500, 1500, nil])
                try await node.networking.prepare(node.network)
                #expect(try mtus(b) == [1450, 1450, 1450])
                // Attached before, completed after: as after a crash.
                try node.ip("link set eth0 mtu 1500", in: b.namespace)
                try node.ip("link set hmb mtu 1500")
                _ = try await cluster.attach(0, "b", 6)
                #expect(try mtus(b) == [1450, 1450, 1450])
            }
        }

        @Test func `the next daemon takes over without one lost connection`() async throws {
            try await JoinedNodes.with(2) { cluster in
                let (a, b) = (try await cluster.attach(0, "a", 5), try await cluster.attach(1, "b", 5))
                let server = try EchoServer("b", in: b.namespace, 80)
                let node = cluster.nodes[0]
                let before = try OverlayInKernel.look(node)
                let open = try Socket(.tcp, in: a.namespace)
                try open.connect(b.address, 80)
                #expect(try open.exchange("1").server == "b")
                let tally = Tally()
                try await withThrowingTaskGroup(of: Void.self) { group in
                    group.addTask {
                        while !tally.counts.withLock({ $0.stop }) {
                            do {
                                _ = try ask(from: a.namespace, b.address, 80)
                                tally.counts.withLock { $0.tries += 1 }
                            } catch { tally.counts.withLock { $0.failures.append("\(error)") } }
                            await Task.yield()
                        }
                    }
                    defer { tally.counts.withLock { $0.stop = true } }
                    for _ in 0..<5 {
                        let next = try node.makeNetworking()
                        try await next.prepare(node.network)
                        #expect(try OverlayInKernel.look(node) == before)
                        #expect(try await next.connect(cluster.others(0)) == [])
                        #expect(try OverlayInKernel.look(node) == before)
                    }
                    try await eventually { tally.counts.withLock { $0.tries } > 50 }
                }
                #expect(tally.counts.withLock { $0.failures } == [])
                #expect(try open.exchange("2").server == "b")
                withExtendedLifetime(server) {}
            }
        }

        @Test func `a node that leaves the cluster keeps nothing of the overlay`() async throws {
            try await JoinedNodes.with(2) { cluster in
                let node = cluster.nodes[0]
                var alone = node.network
                alone.overlay = nil
                try await node.networking.prepare(alone)
                #expect(try !node.links().contains(OverlayDevice.name))
                #expect(try !node.routes().contains { $0.destination == cluster.nodes[1].network.subnet })
                #expect(try await node.networking.connect([]) == [])
                let error = await #expect(throws: NetworkError.self) {
                    try await node.networking.connect(cluster.others(0))
                }
                #expect(error?.code == .invalid)

                let other = cluster.nodes[1]
                try await other.networking.tearDown()
                #expect(try other.links() == ["lo", "up0"])
                #expect(try !other.routes().contains(where: \.isOurs))
            }
        }

        @Test func `what is wrong on the way to a node is named`() async throws {
            try await JoinedNodes.with(3) { cluster in
                let networking = cluster.nodes[0].networking
                func diagnose() async throws -> [OverlayDiagnosis.Finding] {
                    let found = try await networking.diagnose(cluster.others(0), within: .milliseconds(600))
                    #expect(found.map(\.node) == ["n2", "n3"])
                    for one in found { #expect((one.reason == nil) == (one.finding == .healthy), "\(one)") }
                    return found.map(\.finding)
                }
                func nft(_ rule: String, on index: Int) throws {
                    try cluster.nodes[index].run("/usr/sbin/nft", [rule])
                }
                #expect(try await diagnose() == [.healthy, .healthy])

                let chain = "add table inet wall; add chain inet wall in { type filter hook input priority 0; }; "
                try nft(chain + "add rule inet wall in udp dport 4789 drop", on: 1)
                #expect(try await diagnose() == [.blockedUDP, .healthy])
                try nft("delete table inet wall", on: 1)

                // As a device would that writes wrong checksums: echo passes, datagrams do not.
                try nft(chain + "add rule inet wall in iifname hm.vx meta l4proto udp drop", on: 2)
                #expect(try await diagnose() == [.healthy, .brokenOffload])
                try nft("delete table inet wall", on: 2)

                try cluster.nodes[0].ip("link set p1 mtu 1400", in: cluster.underlay)
                #expect(try await diagnose() == [.wrongMTU, .healthy])
                try cluster.nodes[0].ip("link set p1 mtu 1500", in: cluster.underlay)

                try cluster.nodes[0].ip("link set p2 down", in: cluster.underlay)
                #expect(try await diagnose() == [.healthy, .unreachable])
                try cluster.nodes[0].ip("link set p2 up", in: cluster.underlay)

                try cluster.nodes[0].ip("route del 10.210.3.0/24")
                #expect(try await diagnose() == [.healthy, .missingRoute])
                #expect(try await networking.connect(cluster.others(0)) == [])
                try await eventually { try await diagnose() == [.healthy, .healthy] }
            }
        }

        @Test func `datagrams of both sizes are seen at the overlay's port, or are not`() async throws {
            try await JoinedNodes.with(2) { cluster in
                let nonce = [UInt8](repeating: 7, count: 16)
                func knock(_ other: [UInt8]? = nil) async throws -> [Knocks] {
                    let (first, second) = (cluster.nodes[0].networking, cluster.nodes[1].networking)
                    let (own, peer) = (JoinedNodes.address(0), JoinedNodes.address(1))
                    async let there = second.knock(
                        [own], from: peer, nonce: other ?? nonce, within: .milliseconds(700))
                    let here = try await first.knock([peer], from: own, nonce: nonce, within: .milliseconds(700))
                    return [here[peer] ?? [], try await there[own] ?? []]
                }
                #expect(try await knock() == [.all, .all])
                #expect(try await knock([UInt8](repeating: 8, count: 16)) == [[], []], "somebody else's")
                try cluster.nodes[1].run(
                    "/usr/sbin/nft",
                    [
                        "add table inet wall; add chain inet wall in { type filter hook input priority 0; }; "
                            + "add rule inet wall in udp dport 4789 drop"
                    ])
                #expect(try await knock() == [.all, []])
                try cluster.nodes[1].run("/usr/sbin/nft", ["delete table inet wall"])
                try cluster.nodes[0].ip("link set p1 mtu 1400", in: cluster.underlay)
                #expect(try await knock() == [.small, .small])
            }
        }

        @Test func `a range that is free is told from one that is not`() async throws {
            try await JoinedNodes.with(1) { cluster in
                let node = cluster.nodes[0]
                #expect(try await node.networking.conflicts(.standard) == [])
                try node.ip("route add 10.211.3.0/24 dev up0")
                #expect(try await node.networking.conflicts(.standard).count == 1)
            }
        }

        @Test func `trying what the kernel can encrypt leaves nothing`() async throws {
            try await JoinedNodes.with(1) { cluster in
                let node = cluster.nodes[0]
                let before = try node.links()
                let support = try await node.networking.encryption()
                #expect(try node.links() == before)
                // What it cannot it says in words.
                for fault in [support.wireGuard, support.esp].compactMap({ $0 }) { #expect(fault.hasPrefix("cannot ")) }
                #expect(try await node.networking.encryption() == support)
            }
        }

        @Test func `a container cannot speak for the overlay`() async throws {
            try await JoinedNodes.with(2) { cluster in
                let a = try await cluster.attach(0, "a", 5)
                try cluster.nodes[0].ip("addr add 192.0.2.254/24 dev br0", in: cluster.underlay)
                let outside = IPv4Address(value: 192 << 24 | 2 << 8 | 254)
                try waitForWay(from: a.namespace, to: outside)
                let servers = [
                    try EchoServer("plain", .udp, in: cluster.underlay, 4790),
                    try EchoServer("overlay", .udp, in: cluster.underlay, 4789),
                ]
                #expect(try ask(.udp, from: a.namespace, outside, 4790).server == "plain")
                #expect(try refusal(.udp, from: a.namespace, outside, 4789).errno == EAGAIN)
                // Its datagrams to containers are its own business.
                let b = try await cluster.attach(1, "b", 6)
                try waitForWay(from: a.namespace, to: b.address)
                let inner = try EchoServer("b", .udp, in: b.namespace, 4789)
                #expect(try ask(.udp, from: a.namespace, b.address, 4789).server == "b")
                withExtendedLifetime((servers, inner)) {}
            }
        }
    }
}
