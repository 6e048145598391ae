// SPDX-License-Identifier: Apache-2.0
import ContainerdAPI
import FoundationEssentials
import GRPCCore
import Glibc
import Model
import SwiftProtobuf
import Testing

@testable import ContainerRuntime

@Suite(.serialized, .enabled(if: ContainerdHost.isUsable, ContainerdHost.reason), .timeLimit(.minutes(5)))
struct ContainerdTests {
    @Test
    func `four hundred calls in a row and 120 streams do not end or block the connection`() async throws {
        try await ContainerdFixture.run { fixture in
            let client = fixture.runtime.client
            for _ in 0..<400 { _ = try await client.unary.version.version(.init()) }

            // 120 subscriptions at once: 64 stand (one is the runtime's own), the others are refused in time.
            let outcome = try await withThrowingTaskGroup(of: Bool.self) { group in
                for _ in 0..<120 {
                    group.addTask {
                        do {
                            return try await client.withStreams(waitingAtMost: .seconds(1)) { services in
                                var request = Containerd_Services_Events_V1_SubscribeRequest()
                                request.filters = ["topic==\"/nothing\""]
                                return try await services.events.subscribe(request) { response in
                                    for try await _ in response.messages {}
                                    return true
                                }
                            }
                        } catch let error as ContainerRuntime.RuntimeError {
                            return error.reason.code != .runtimeUnavailable
                        }
                    }
                }
                var refused = 0
                while refused < 57, let stood = try await group.next() { refused += stood ? 0 : 1 }
                // Calls go on meanwhile.
                _ = try await client.unary.version.version(.init())
                group.cancelAll()
                return refused
            }
            #expect(outcome == 57)
            _ = try await client.withStreams { try await $0.snapshots.list(.init()) { _ in true } }
        }
    }

    @Test
    func `a container starts, writes a log, ends with its code, and is removed without a trace`() async throws {
        try await ContainerdFixture.run { fixture in
            let events = fixture.runtime.events()
            let spec = fixture.spec("exits", ["/bin/sh", "-c", "echo hello; exit 7"])
            let started = try await fixture.runtime.start(spec)
            #expect(started.pid > 0)
            var seen: Model.ExitStatus?
            for await event in events {
                if case .exited(let id, let status) = event, id == spec.id {
                    seen = status
                    break
                }
            }
            #expect(seen?.code == 7)
            #expect(seen?.outOfMemory == false)
            #expect(try await fixture.exit(of: spec.id).code == 7)
            try await fixture.runtime.remove(spec.id)
            try await fixture.runtime.remove(spec.id)
            #expect(try await fixture.runtime.containers().isEmpty)
            #expect(access("\(fixture.directory)/tasks/exits.0", F_OK) != 0)
            #expect(
                try await fixture.output(of: fixture.spec("again", ["/bin/sh", "-c", "echo hello; echo END"]))
                    == "hello\nEND\n")
        }
    }

    @Test
    func `inside, environment, files, user, limits and mounts are as asked`() async throws {
        try await ContainerdFixture.run { fixture in
            let volume = "\(fixture.directory)/volume"
            mkdir(volume, 0o755)
            let script = """
                id -u; id -g; id -G; pwd; echo $IMAGE $OWN $HOSTNAME; hostname; cat /etc/resolv.conf /etc/hosts
                cat /data/file /data/sub/file /data/link; stat -c '%u %a' /data
                grep -E 'Seccomp:|NoNewPrivs|CapEff' /proc/self/status
                echo no > /file || echo readonly; mkdir /sys/x || echo sys; cat /proc/kcore | wc -c; echo END
                """
            let spec = fixture.spec(
                "inside", ["/bin/sh", "-c", script],
                change: { service in
                    service.user = "web"
                    service.workingDirectory = "/srv/made"
                    service.environment = ["OWN": "a b"]
                    service.readOnlyRoot = true
                    service.resources = Resources(cpuMillis: 500, memoryBytes: 64 << 20, pidsMax: 50)
                },
                mounts: [
                    ContainerMount(kind: .bind(source: volume), target: "/data", readOnly: false, seedsFromImage: true)
                ])
            let text = try await fixture.output(of: spec)
            for part in [
                "1000\n1000\n1000 2000\n/srv/made\nyes a b web-1\nweb-1\nnameserver 169.254.20.10\n",
                "10.1.2.3\tweb-1",
                "first\ndeep\nfirst\n1000 750\n", "Seccomp:\t2", "NoNewPrivs:\t1", "CapEff:\t0000000000000000",
                "readonly\n",
                "sys\n",
            ] {
                #expect(text.contains(part), "`\(part)` in \(text)")
            }
            // Not empty any more: what is in it stays.
            try ContainerdFixture.shell("echo second > \(volume)/file")
            let again = try await fixture.output(
                of: fixture.spec(
                    "later", ["/bin/sh", "-c", "cat /data/file; echo END"],
                    mounts: [
                        ContainerMount(
                            kind: .bind(source: volume), target: "/data", readOnly: true, seedsFromImage: true)
                    ]))
            #expect(again == "second\nEND\n")
        }
    }

    @Test
    func `what cannot start says why and leaves nothing`() async throws {
        try await ContainerdFixture.run { fixture in
            func code(_ spec: ContainerSpec) async -> Reason.Code? {
                do {
                    _ = try await fixture.runtime.start(spec)
                    return nil
                } catch {
                    return reason(for: error).code
                }
            }
            #expect(await code(fixture.spec("a", ["nothing-here"])) == .commandNotFound)
            #expect(await code(fixture.spec("b", ["/nothing/here"])) == .commandNotFound)
            #expect(await code(fixture.spec("c", ["/private/text"])) == .commandNotExecutable)
            #expect(await code(fixture.spec("d", ["/bin/true"], change: { $0.user = "nobody-here" })) == .userNotFound)
            let missing = ContainerMount(kind: .bind(source: "/nothing/here"), target: "/data", readOnly: false)
            #expect(await code(fixture.spec("e", ["/bin/true"], mounts: [missing])) == .mountSourceMissing)
            #expect(try await fixture.runtime.containers().isEmpty)
            let snapshots = try await fixture.runtime.client.withStreams { services in
                var request = Containerd_Services_Snapshots_V1_ListSnapshotsRequest()
                request.snapshotter = "overlayfs"
                return try await services.snapshots.list(request) { response in
                    var kinds: [Containerd_Services_Snapshots_V1_Kind] = []
                    for try await part in response.messages { kinds += part.info.map(\.kind) }
                    return kinds
                }
            }
            #expect(snapshots == [.committed])
            #expect(try FileManager.default.contentsOfDirectory(atPath: "\(fixture.directory)/tasks").isEmpty)
        }
    }

    @Test
    func `stop sends the signal of the image, and SIGKILL after the timeout`() async throws {
        try await ContainerdFixture.run { fixture in
            let polite = fixture.spec("polite", ["/bin/sh", "-c", "trap 'exit 3' INT; while :; do sleep 0.05; done"])
            _ = try await fixture.runtime.start(polite)
            try await fixture.runtime.stop(polite.id, signal: nil, timeoutMilliseconds: 15_000)
            #expect(try await fixture.exit(of: polite.id).code == 3)
            let deaf = fixture.spec("deaf", ["/bin/sh", "-c", "trap '' TERM INT; while :; do sleep 0.05; done"])
            _ = try await fixture.runtime.start(deaf)
            try await fixture.runtime.stop(deaf.id, signal: "TERM", timeoutMilliseconds: 200)
            #expect(try await fixture.exit(of: deaf.id).code == 137)
            #expect(try await fixture.exit(of: deaf.id).outOfMemory == false)
            try await fixture.runtime.stop(deaf.id, signal: nil, timeoutMilliseconds: 0)
            try await fixture.runtime.remove(deaf.id)
            try await fixture.runtime.stop(deaf.id, signal: nil, timeoutMilliseconds: 0)
        }
    }

    @Test
    func `more memory than the limit is reported as such`() async throws {
        try await ContainerdFixture.run { fixture in
            let events = fixture.runtime.events()
            let spec = fixture.spec(
                "hungry", ["/bin/sh", "-c", "dd if=/dev/zero of=/dev/null bs=200M count=3"],
                change: { $0.resources.memoryBytes = 16 << 20 })
            _ = try await fixture.runtime.start(spec)
            // A shell of which a child was killed goes on with 137 of its own.
            for await event in events {
                guard case .exited(spec.id, let status) = event else { continue }
                #expect(status.code == 137)
                #expect(status.outOfMemory)
                break
            }
            #expect(try await fixture.exit(of: spec.id).outOfMemory)
        }
    }

    @Test
    func `containers survive their containerd, which is started again`() async throws {
        try await ContainerdFixture.run { fixture in
            let spec = fixture.spec("lasting", ["/bin/sleep", "1000"])
            let started = try await fixture.runtime.start(spec)
            let first = try #require(await fixture.runtime.containerdProcessIdentifier())
            let events = fixture.runtime.events()
            kill(first, SIGKILL)
            try await ContainerdFixture.wait {
                let now = await fixture.runtime.containerdProcessIdentifier()
                return now != nil && now != first
            }
            for await event in events where event == .resync { break }
            #expect(try await fixture.state(spec.id) == .running(pid: started.pid))
            // Same id again: what runs is what was asked for.
            #expect(try await fixture.runtime.start(spec).pid == started.pid)
            try await fixture.runtime.stop(spec.id, signal: "KILL", timeoutMilliseconds: 1000)
            #expect(try await fixture.exit(of: spec.id).signal == 9)
        }
    }

    @Test
    func `the next daemon adopts containerd and finds its containers`() async throws {
        try await ContainerdFixture.run { fixture in
            let spec = fixture.spec("adopted", ["/bin/sleep", "1000"])
            let started = try await fixture.runtime.start(spec)
            let first = await fixture.runtime.containerdProcessIdentifier()
            await fixture.runtime.shutdown(endingContainerd: false)
            // As a crash leaves it between the removal of a record and that of its files.
            let left = fixture.runtime.files.directory(ContainerID("gone.0"))
            try TaskFiles.makeDirectories(left + "/image")
            try TaskFiles.write("gone\n", to: left + "/hostname")

            let next = try await ContainerdFixture.start(in: fixture.directory)
            #expect(try next.files.all() == [spec.id])
            #expect(await next.containerdProcessIdentifier() == first)
            #expect(try await next.containers().map(\.state) == [.running(pid: started.pid)])
            try await next.remove(spec.id)
            #expect(kill(started.pid, 0) != 0)
            await next.shutdown()
            #expect(first.map { ProcessIdentity(pid: $0) == nil } == true)
        }
    }

    @Test
    func `a container left by a crash is replaced`() async throws {
        try await ContainerdFixture.run { fixture in
            let spec = fixture.spec("left", ["/bin/sh", "-c", "exit 0"])
            _ = try await fixture.runtime.start(spec)
            _ = try await fixture.exit(of: spec.id)
            let again = try await fixture.runtime.start(spec)
            #expect(again.pid > 0)
            #expect(try await fixture.exit(of: spec.id).code == 0)
        }
    }

    @Test
    func `a container of a known image starts without needless calls`() async throws {
        try await ContainerdFixture.run { fixture in
            var times: [Duration] = []
            for round in 0..<10 {
                let spec = fixture.spec("round\(round)", ["/bin/sleep", "1000"])
                times.append(try await ContinuousClock().measure { _ = try await fixture.runtime.start(spec) })
                try await fixture.runtime.remove(spec.id)
            }
            let median = times.sorted()[5]
            print("create to running, median of 10: \(median)")
            #expect(median < .seconds(3), "slower than any load explains")
        }
    }
}
