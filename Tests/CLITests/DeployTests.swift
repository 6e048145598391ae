// SPDX-License-Identifier: Apache-2.0
import FoundationEssentials
import Model
import Testing

@testable import CLI

struct DeployTests {
    static let put = "PUT /v1/apps/web"
    static let tasksPath = "GET /v1/tasks?app=web&all=true"

    /// A daemon that accepted a deploy whose operation goes through the states given.
    static func daemon(_ states: RolloutView..., existing: Bool = true) -> FakeDaemon {
        let daemon = FakeDaemon()
            .on(put, .ok(Sample.app(status: .deploying, ready: 0), status: 202, operation: "op1"))
            .on(tasksPath, .ok(Sample.list(Sample.task("kaaaaaaaaaaa", createdAt: FakeTerminal.now))))
        for state in states { daemon.on("GET /v1/operations/op1", .ok(Sample.operation(state))) }
        if existing { daemon.on("GET /v1/apps/web", .ok(Sample.app())) }
        return daemon
    }

    @Test func `every flag becomes its field of the spec`() async throws {
        let daemon = Self.daemon(Sample.rollout(.succeeded, updated: 3))
        let result = await hivemind(
            "app", "deploy", "web", "--image", "nginx:1.27", "--replicas", "3", "--port", "8080:80", "-p", "53/udp",
            "--volume", "data:/data:ro", "-v", "./www:/www", "--tmpfs", "/tmp:size=64m", "--env", "A=1", "-e", "TOKEN",
            "--env-file", "my.env", "--cpu", "0.5", "--memory", "256m", "--pids", "100", "--restart", "on-failure",
            "--user", "1000:1000", "--workdir", "/w", "--hostname", "h", "--entrypoint", "/bin/sh", "--label",
            "tier=front",
            "--read-only", "--cap-add", "net_admin", "--cap-drop", "all", "--stop-signal", "quit", "--stop-timeout",
            "1m30s", "--endpoint-mode", "dnsrr", "--", "-c", "echo --image x",
            daemon: daemon,
            options: .init(environment: ["TOKEN": "secret", "PWD": "/srv"], files: ["my.env": "A=0\nB=2\n"]))
        #expect(result.status == 0, "\(result.err)")
        guard case .bytes(let bytes)? = daemon.requests.first?.body else {
            Issue.record("no body was sent")
            return
        }
        let request = try JSON.decode(PutAppRequest.self, from: Data(bytes))
        let expected = ServiceSpec(
            name: "web", image: "nginx:1.27", replicas: 3, entrypoint: ["/bin/sh"], command: ["-c", "echo --image x"],
            environment: ["A": "1", "B": "2", "TOKEN": "secret"], user: "1000:1000", workingDirectory: "/w",
            hostname: "h", labels: ["tier": "front"],
            mounts: [
                MountSpec(source: .volume("data"), target: "/data", readOnly: true),
                MountSpec(source: .bind("/srv/www"), target: "/www"),
                MountSpec(source: .tmpfs(sizeBytes: 64 << 20), target: "/tmp"),
            ],
            ports: [
                PortSpec(hostPort: 8080, containerPort: 80), PortSpec(hostPort: nil, containerPort: 53, protocol: .udp),
            ],
            resources: Resources(cpuMillis: 500, memoryBytes: 256 << 20, pidsMax: 100), restart: .onFailure,
            endpointMode: .dnsrr, readOnlyRoot: true, capabilitiesAdd: ["CAP_NET_ADMIN"], capabilitiesDrop: ["ALL"],
            stopSignal: "SIGQUIT", stopTimeoutMilliseconds: 90_000)
        #expect(request.services == [expected])
    }

    @Test func `a deploy that succeeds says where the app answers`() async throws {
        let daemon = Self.daemon(
            Sample.rollout(.running, updated: 0), Sample.rollout(.running, updated: 2),
            Sample.rollout(.succeeded, updated: 3))
        let result = await hivemind("app", "deploy", "--name", "web", "--image", "nginx", daemon: daemon)
        try expectGolden(result.transcript, "deploy/succeeded.txt")
    }

    @Test func `JSON of a deploy is the app as it is at the end`() async throws {
        let daemon = Self.daemon(Sample.rollout(.succeeded, updated: 3))
        let result = await hivemind("app", "deploy", "web", "--image", "nginx", "-o", "json", daemon: daemon)
        #expect(result.status == 0)
        #expect(try JSON.decode(AppView.self, from: Data(result.out.utf8)) == Sample.app())
        #expect(!result.err.contains("next:"))
    }

    @Test func `a rolled back deploy ends with 8, its cause and the last log lines`() async throws {
        let reason = Reason(.crashLoop, "exited with code 1 five times", hint: "look at its log")
        let log = (1...3).map {
            AppLogLine(
                task: "kaaaaaaaaaaa", service: "web", at: FakeTerminal.now, stream: .stderr, text: "line \($0)")
        }
        let daemon = Self.daemon(
            Sample.rollout(.running), Sample.rollout(.rolledBack, reason: reason, failedTask: "kaaaaaaaaaaa"))
        daemon.on("GET /v1/apps/web/logs?task=kaaaaaaaaaaa&tail=20", .lines(log))
        let result = await hivemind("app", "deploy", "web", "--image", "nginx", daemon: daemon)
        #expect(result.status == 8)
        try expectGolden(result.transcript, "deploy/rolled-back.txt")
    }

    @Test func `a failed deploy ends with 9 also when its task has no log`() async throws {
        let reason = Reason(.commandNotFound, "`nope` is not in the image", hint: "mend the command after --")
        let daemon = Self.daemon(Sample.rollout(.failed, reason: reason, failedTask: "kaaaaaaaaaaa"))
        let result = await hivemind("app", "deploy", "web", "--image", "nginx", daemon: daemon)
        #expect(result.status == 9)
        try expectGolden(result.transcript, "deploy/failed.txt")
    }

    @Test(arguments: [
        Problem.Code.imageNotFound, .imageInvalid, .registryUnreachable, .registryDenied,
    ])
    func `a refused image ends with 8 when the app existed, else with 9`(code: Problem.Code) async {
        for (isExisting, status) in [(true, Int32(8)), (false, 9)] {
            let daemon = FakeDaemon().on(Self.put, .problem(Problem(code, "image `x` is no good", hint: "mend it")))
            if isExisting { daemon.on("GET /v1/apps/web", .ok(Sample.app())) }
            let result = await hivemind("app", "deploy", "web", "--image", "x", daemon: daemon)
            #expect(result.status == status)
            #expect(result.err.contains("image `x` is no good\nhint: mend it"))
        }
    }

    @Test func `a port conflict ends with 7 whether or not the app existed`() async {
        let daemon = FakeDaemon().on(Self.put, .problem(Problem(.portConflict, "port 8080 belongs to `api`")))
        let result = await hivemind("app", "deploy", "web", "--image", "x", daemon: daemon)
        #expect(result.status == 7)
    }

    @Test func `the time is over: exit 10, the rollout goes on`() async throws {
        let daemon = Self.daemon(Sample.rollout(.running))
        let result = await hivemind("app", "deploy", "web", "--image", "x", "--timeout", "3s", daemon: daemon)
        try expectGolden(result.transcript, "deploy/timeout.txt")
    }

    @Test func `Ctrl-C leaves the rollout going and says so`() async {
        let daemon = Self.daemon(Sample.rollout(.running))
        let result = await hivemind(
            "app", "deploy", "web", "--image", "x", daemon: daemon, options: .init(isInterrupted: true))
        #expect(result.status == 130)
        #expect(result.err.contains("goes on"))
        #expect(!daemon.log.contains { $0.hasPrefix("DELETE") })
    }

    @Test func `without waiting the operation is shown`() async throws {
        let daemon = Self.daemon(Sample.rollout(.running))
        let result = await hivemind("app", "deploy", "web", "--image", "x", "--no-wait", daemon: daemon)
        try expectGolden(result.transcript, "deploy/no-wait.txt")
        #expect(daemon.log == [Self.put, "GET /v1/operations/op1"])
    }

    @Test func `nothing to change is said and waits for nothing`() async {
        let daemon = FakeDaemon().on(Self.put, .ok(Sample.app())).on("GET /v1/apps/web", .ok(Sample.app()))
        let result = await hivemind("app", "deploy", "web", "--image", "nginx:1.27", daemon: daemon)
        #expect(result.status == 0)
        #expect(result.err.contains("nothing to change"))
    }

    @Test func `a newer deploy that took over ends with 7`() async {
        let daemon = Self.daemon(Sample.rollout(.superseded))
        #expect(await hivemind("app", "deploy", "web", "--image", "x", daemon: daemon).status == 7)
    }

    @Test func `a daemon that restarts meanwhile is waited for, one that stays away is an error`() async {
        let away = CLIError(.connection, "the daemon does not run", hint: "start it")
        let back = FakeDaemon().on(Self.put, .ok(Sample.app(), status: 202, operation: "op1"))
            .on(Self.tasksPath, .ok(Sample.list(Sample.task("kaaaaaaaaaaa"))))
            .on("GET /v1/apps/web", .ok(Sample.app()))
        back.fail("GET /v1/operations/op1", away).fail("GET /v1/operations/op1", away)
            .on("GET /v1/operations/op1", .ok(Sample.operation(Sample.rollout(.succeeded))))
        #expect(await hivemind("app", "deploy", "web", "--image", "x", daemon: back).status == 0)
        let gone = FakeDaemon().on(Self.put, .ok(Sample.app(), status: 202, operation: "op1"))
            .fail("GET /v1/operations/op1", away)
        #expect(await hivemind("app", "deploy", "web", "--image", "x", daemon: gone).status == 3)
    }

    @Test func `progress on a terminal renews itself and leaves nothing behind`() async {
        let daemon = Self.daemon(Sample.rollout(.running, updated: 0), Sample.rollout(.succeeded, updated: 3))
        let result = await hivemind(
            "app", "deploy", "web", "--image", "x", daemon: daemon, options: .init(isTTY: true))
        #expect(result.err.contains("web: release 2, 0/3 updated\n"))
        #expect(result.err.contains("\u{1B}[2A\u{1B}[J"))
        #expect(!result.out.contains("updated"))
    }
}
