// SPDX-License-Identifier: Apache-2.0
import Glibc
import Model
import TestSupport
import Testing

@testable import ContainerNetwork

extension RealNetwork {
    @Suite struct `Attachments` {
        @Test func `the real network does what every network must`() async throws {
            try await TestNode.with(prepared: false) { node, networking in
                for check in NetworkingConformance(networking, node: node.network).checks {
                    do { try await check.run() } catch { Issue.record("\(check.name): \(error)") }
                }
            }
        }

        @Test func `detach leaves nothing`() async throws {
            try await TestNode.with { node, networking in
                let (links, routes) = (try node.links(), try node.routes())
                let a = try await node.attach(networking, "a", 5)
                let server = try EchoServer("a", in: a.namespace, 80)
                _ = try ask(from: node.inside, a.address, 80)
                #expect(try node.links().count == links.count + 1)
                #expect(try node.flows(a.address) > 0)
                try await networking.detach(task: "a")
                #expect(try node.links() == links)
                #expect(try node.routes() == routes)
                #expect(try node.handles().isEmpty)
                #expect(try node.flows(a.address) == 0)
                #expect(access(a.namespace, F_OK) != 0)
                withExtendedLifetime(server) {}
            }
        }

        @Test func `two hundred come and go without a trace`() async throws {
            try await TestNode.with { node, networking in
                func round(_ number: Int) async throws {
                    let request = AttachmentRequest(
                        task: TaskID("t\(number)"), address: node.network.subnet[2 + number])
                    _ = try await networking.attach(request)
                    try await networking.detach(task: request.task)
                }
                try await round(0)
                let before = (try node.links(), try node.routes(), openDescriptors(), mounts())
                for number in 1...200 { try await round(number) }
                let after = (try node.links(), try node.routes(), openDescriptors(), mounts())
                #expect(after == before)
                #expect(try node.handles().isEmpty)
            }
        }

        @Test func `what a crash left half made is completed`() async throws {
            try await TestNode.with { node, networking in
                let other = try await node.attach(networking, "other", 6)
                let server = try EchoServer("other", in: other.namespace, 80)
                let path = node.folder + "/netns/a"
                let steps: [(String, () throws -> Void)] = [
                    ("a file without a namespace", { close(open(path, O_CREAT | O_WRONLY, 0o600)) }),
                    ("a namespace without an interface", { try NetworkNamespace.ensure(path) }),
                    (
                        "an interface without an address",
                        {
                            try NetworkNamespace.ensure(path)
                            try node.ip("link add hma type veth peer name eth0 netns \(path)")
                        }
                    ),
                    (
                        "a link that leads elsewhere",
                        { try node.ip("link add hma type veth peer name elsewhere netns \(node.outside)") }
                    ),
                    (
                        "the interface of another link, with another address",
                        {
                            try NetworkNamespace.ensure(path)
                            try node.ip("link add hmzzz type veth peer name eth0 netns \(path)")
                            try node.ip("addr add 10.210.1.50/32 dev eth0", in: path)
                        }
                    ),
                ]
                for (what, make) in steps {
                    try make()
                    #expect(try await networking.attachedTasks().contains("a"), "\(what)")
                    let a = try await node.attach(networking, "a", 5)
                    #expect(try ask(from: a.namespace, other.address, 80).client == "\(a.address)", "\(what)")
                    try await networking.detach(task: "a")
                    #expect(try await networking.attachedTasks() == ["other"], "\(what)")
                }
                // Detached without having been completed.
                for (what, make) in steps {
                    try make()
                    try await networking.detach(task: "a")
                    try await networking.detach(task: "zzz")
                    #expect(try await networking.attachedTasks() == ["other"], "\(what)")
                }
                withExtendedLifetime(server) {}
            }
        }

        @Test func `a task that gets another address has only that one`() async throws {
            try await TestNode.with { node, networking in
                _ = try await node.attach(networking, "a", 5)
                let moved = try await node.attach(networking, "a", 6)
                let server = try EchoServer("a", in: moved.namespace, 80)
                #expect(try ask(from: node.inside, moved.address, 80).server == "a")
                #expect(throws: NetworkError.self) { try ask(from: node.inside, node.network.subnet[5], 80) }
                withExtendedLifetime(server) {}
            }
        }

        @Test func `ranges the host uses are refused, and nothing is changed`() async throws {
            try await TestNode.with(prepared: false) { node, networking in
                try node.ip("route add 10.211.7.0/24 via \(TestNode.outsideAddress)")
                let (links, routes) = (try node.links(), try node.routes())
                let error = await #expect(throws: NetworkError.self) { try await networking.prepare(node.network) }
                #expect(error?.code == .overlap)
                #expect(error?.message.contains("10.211.7.0/24 dev up0") == true)
                #expect(try node.links() == links)
                #expect(try node.routes() == routes)
                #expect(try !node.hasTable())
            }
        }

        @Test func `nothing works before prepare, and says so`() async throws {
            try await TestNode.with(prepared: false) { node, networking in
                await #expect(throws: NetworkError.self) { try await networking.program(.empty) }
                await #expect(throws: NetworkError.self) { try await node.attach(networking, "a", 5) }
            }
        }

        @Test func `a namespace that cannot be entered is never replaced by the process's own`() async throws {
            let networking = try KernelNetworking(
                dataDirectory: "/tmp/hmnet-none", namespacePath: "/proc/self/ns/missing")
            let node = NodeNetwork(subnet: AddressRanges.standard.containers, ranges: .standard)
            await #expect(throws: NetworkError.self) { try await networking.prepare(node) }
            await #expect(throws: NetworkError.self) { try await networking.tearDown() }
            let port = PublishedPort(hostPort: 1, containerPort: 1, protocol: .tcp)
            #expect(await networking.portsInUse([port]) == [port])
        }

        @Test func `tear down leaves the node as it was`() async throws {
            try await TestNode.with(prepared: false) { node, networking in
                let (links, routes) = (try node.links(), try node.routes())
                try await networking.prepare(node.network)
                _ = try await node.attach(networking, "a", 5)
                #expect(try node.hasTable())
                try await networking.tearDown()
                #expect(try node.links() == links)
                #expect(try node.routes() == routes)
                #expect(try !node.hasTable())
                #expect(try node.handles().isEmpty)
            }
        }

        @Test func `attach and program are fast`() async throws {
            try await TestNode.with { node, networking in
                let clock = ContinuousClock()
                func median(_ times: [Duration]) -> Duration { times.sorted()[times.count / 2] }
                var (attach, detach, change) = ([Duration](), [Duration](), [Duration]())
                for number in 0..<20 {
                    let request = AttachmentRequest(
                        task: TaskID("t\(number)"), address: node.network.subnet[2 + number])
                    attach.append(try await clock.measure { _ = try await networking.attach(request) })
                    detach.append(try await clock.measure { try await networking.detach(task: request.task) })
                }
                var services = (2..<1002).map { number in
                    BalancedService(
                        vip: node.vip(number), endpoints: (2..<5).map { node.network.subnet[$0] }, ports: [])
                }
                let load = try await clock.measure {
                    _ = try await networking.program(BalancingTable(index: 1, services: services))
                }
                for number in 0..<50 {
                    services[number].endpoints.removeLast()
                    change.append(
                        try await clock.measure {
                            _ = try await networking.program(
                                BalancingTable(index: UInt64(number) + 2, services: services))
                        }
                    )
                }
                print("attach p50 \(median(attach)), detach p50 \(median(detach))")
                print("program: 1,000 services of 3 \(load), one endpoint less p50 \(median(change))")
                #expect(median(attach) < .milliseconds(200))
                #expect(median(change) < .milliseconds(200))
            }
        }
    }
}

private func openDescriptors() -> Int { entries("/proc/self/fd") }

private func mounts() -> Int {
    guard let file = fopen("/proc/self/mountinfo", "r") else { return -1 }
    defer { fclose(file) }
    var lines = 0
    while true {
        let byte = fgetc(file)
        if byte == EOF { return lines }
        if byte == 10 { lines += 1 }
    }
}

private func entries(_ path: String) -> Int {
    guard let folder = opendir(path) else { return -1 }
    defer { closedir(folder) }
    var count = 0
    while readdir(folder) != nil { count += 1 }
    return count
}
