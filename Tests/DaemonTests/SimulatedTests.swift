// SPDX-License-Identifier: Apache-2.0
import Foundation
import Model
import TestSupport
import Testing

@testable import Daemon

@Suite struct SimulatedTests {
    private let runtime = SimulatedRuntime(now: { Timestamp(milliseconds: 1000) })

    private func spec(_ task: String, _ command: [String]? = nil, attempt: Int = 0) -> ContainerSpec {
        let id = TaskID(task)
        return ContainerSpec(
            id: ContainerID(task: id, attempt: attempt), task: id, attempt: attempt,
            service: ServiceSpec(name: "web", image: "nginx", command: command), app: ObjectKey(name: "web"),
            mounts: [], networkNamespace: nil, address: nil, nameServers: [], hostname: "web")
    }

    private func pull() async throws {
        let image = try await runtime.resolve(image: "nginx")
        try await runtime.pull(image: image.reference, digest: image.digest)
    }

    @Test func `the simulated runtime keeps every promise of a runtime`() async throws {
        try await RuntimeConformance(
            runtime: SimulatedRuntime(), image: "nginx:1", missingImage: "registry:5000/team/missing:2",
            foreverCommand: ["serve"], exitThreeCommand: ["exit", "3"], missingCommand: ["missing"], prefix: "sim"
        ).checkAll()
    }

    @Test func `a digest depends on the reference alone and has the form of one`() async throws {
        let first = try await runtime.resolve(image: "nginx")
        let second = try await SimulatedRuntime().resolve(image: "nginx:latest")
        #expect(first == second)
        #expect(first.digest.count == 71)
        #expect(try await runtime.resolve(image: "nginx:2").digest != first.digest)
        let pinned = "nginx@sha256:\(String(repeating: "a", count: 64))"
        #expect(try await runtime.resolve(image: pinned).digest == "sha256:\(String(repeating: "a", count: 64))")
    }

    @Test func `stopping ends with the signal's code and is told once`() async throws {
        try await pull()
        let events = runtime.events()
        let spec = spec("t1")
        _ = try await runtime.start(spec)
        try await runtime.stop(spec.id, signal: "SIGINT", timeoutMilliseconds: 0)
        try await runtime.stop(spec.id, signal: "SIGINT", timeoutMilliseconds: 0)
        runtime.loseEvents()
        var seen: [RuntimeEvent] = []
        for await event in events {
            seen.append(event)
            if event == .resync { break }
        }
        let status = ExitStatus(code: 130, outOfMemory: false, at: Timestamp(milliseconds: 1000))
        #expect(seen == [.exited(spec.id, status), .resync])
    }

    @Test func `a container that uses too much memory ends with that reason`() async throws {
        try await pull()
        _ = try await runtime.start(spec("t1", ["oom"]))
        _ = try await runtime.start(spec("t2"))
        #expect(runtime.end("t2.0", code: 137, outOfMemory: true))
        #expect(!runtime.end("t2.0", code: 0))
        for container in try await runtime.containers() {
            guard case .exited(let status) = container.state else {
                Issue.record("\(container.id) runs")
                continue
            }
            #expect(status.reason.code == .outOfMemory)
        }
    }

    @Test func `steps fail as the script says and in its order`() async throws {
        try await pull()
        var faults = Faults()
        faults.pass(.start)
        faults.fail(.start, with: Reason(.startFailed, "no luck"), times: 2)
        runtime.setFaults(faults)
        _ = try await runtime.start(spec("t1"))
        for _ in 0..<2 {
            await #expect(throws: SimulatedError(.startFailed, "no luck")) { try await runtime.start(spec("t2")) }
        }
        _ = try await runtime.start(spec("t2"))
        #expect(try await runtime.containers().map(\.id) == ["t1.0", "t2.0"])
    }

    @Test func `starting twice is one container`() async throws {
        try await pull()
        let first = try await runtime.start(spec("t1"))
        #expect(try await runtime.start(spec("t1")) == first)
    }

    @Test func `logs keep the newest lines and a follower gets new ones until they are removed`() async throws {
        for number in 0..<(SimulatedRuntime.logLinesMax + 5) { runtime.write("\(number)", by: "t1") }
        var stored: [String] = []
        for try await line in runtime.logs(LogQuery(task: "t1")) { stored.append(line.text) }
        #expect(stored.count == SimulatedRuntime.logLinesMax)
        #expect(stored.first == "5")

        let followed = runtime.logs(LogQuery(task: "t1", tail: 1, follow: true))
        runtime.write("new", by: "t1")
        runtime.write("other", by: "t2")
        try await runtime.removeLogs(task: "t1")
        var lines: [String] = []
        for try await line in followed { lines.append(line.text) }
        #expect(lines == ["1004", "new"])
    }

    @Test func `it says that it forgets`() async {
        let info = await runtime.info()
        #expect(info.kind == "simulated")
        #expect(info.conditions.first?.contains("forgotten") == true)
    }

    @Test func `the simulated network hands an address to one task only`() async throws {
        let network = SimulatedNetworking()
        let address = try #require(IPv4Address("10.210.0.2"))
        let request = AttachmentRequest(task: "t1", address: address)
        let attachment = try await network.attach(request)
        #expect(attachment.namespacePath == nil)
        #expect(try await network.attach(request) == attachment)
        let error = await #expect(throws: SimulatedError.self) {
            try await network.attach(AttachmentRequest(task: "t2", address: address))
        }
        #expect(error?.reason.code == .networkFailed)
        #expect(try await network.attachedTasks() == ["t1"])
        try await network.detach(task: "t1")
        try await network.detach(task: "t1")
        #expect(try await network.attachedTasks().isEmpty)
    }

    @Test func `ports of the host that are taken are not published`() async throws {
        let network = SimulatedNetworking()
        var faults = Faults()
        faults.portsInUse = [80]
        network.setFaults(faults)
        let vip = try #require(IPv4Address("10.211.0.1"))
        let taken = PublishedPort(hostPort: 80, containerPort: 80, protocol: .tcp)
        let free = PublishedPort(hostPort: 81, containerPort: 80, protocol: .tcp)
        let table = BalancingTable(
            index: 3, services: [BalancedService(vip: vip, endpoints: [], ports: [taken, free])])
        #expect(try await network.program(table) == [taken])
        #expect(await network.portsInUse([free]).isEmpty)
        #expect(network.table == table)
    }

    @Test func `a simulated volume is a directory that can be filled, measured and deleted`() async throws {
        let directory = try temporaryDirectory()
        defer { try? FileManager.default.removeItem(atPath: directory) }
        let volumes = SimulatedVolumes(directory: directory + "/volumes")
        let key = ObjectKey(name: "data")
        #expect(try await volumes.list().isEmpty)
        #expect(try await volumes.usedBytes(key) == nil)
        let state = try await volumes.ensure(key)
        #expect(!state.isSeeded)
        try await volumes.markSeeded(key)
        #expect(try await volumes.ensure(key) == VolumeState(path: state.path, isSeeded: true))
        try FileManager.default.createDirectory(atPath: state.path + "/d", withIntermediateDirectories: false)
        try Data(count: 100_000).write(to: URL(fileURLWithPath: state.path + "/d/file"))
        let used = try #require(try await volumes.usedBytes(key))
        #expect(used >= 100_000)
        #expect(try await volumes.list() == [key])
        try await volumes.delete(key)
        try await volumes.delete(key)
        #expect(!FileManager.default.fileExists(atPath: state.path))
        #expect(try await volumes.ensure(key).isSeeded == false)
        await #expect(throws: SimulatedError.self) { try await volumes.ensure(ObjectKey(name: "../x")) }
    }

    @Test func `simulated volumes keep what every driver promises`() async throws {
        let directory = try temporaryDirectory()
        defer { try? FileManager.default.removeItem(atPath: directory) }
        try await VolumeConformance(volumes: SimulatedVolumes(directory: directory + "/volumes"), prefix: "s")
            .checkAll()
    }

    @Test func `the last table of names is kept`() async {
        let names = SimulatedNames()
        let table = NameTable(index: 4, services: [], clients: [])
        await names.publish(table)
        #expect(names.table == table)
    }
}
