// SPDX-License-Identifier: Apache-2.0
import FoundationEssentials
import Model
import Testing

@testable import CLI

struct VerbTests {
    @Test(arguments: [
        ["web", "5"], ["web=5"], ["web", "--replicas", "5"], ["--name", "web", "--replicas", "5"],
        ["--name", "web", "5"],
    ])
    func `scale takes the number in every form`(words: [String]) async throws {
        let daemon = FakeDaemon().on("POST /v1/apps/web/scale", .ok(Sample.app(desired: 5), status: 202))
            .on("GET /v1/apps/web", .ok(Sample.app(ready: 3, desired: 5)), .ok(Sample.app(ready: 5, desired: 5)))
        let fake = FakeTerminal()
        let status = await Terminal.$current.withValue(fake.terminal(daemon, .init())) {
            await Hivemind.execute(["app", "scale"] + words)
        }
        #expect(status == 0, "\(fake.result(status).err)")
        #expect(daemon.requests.first?.body == .bytes(Array(#"{"replicas":5}"#.utf8)))
        #expect(fake.result(status).out.contains("5 of 5 ready"))
    }

    @Test func `restart waits for its rollout`() async {
        let daemon = DeployTests.daemon(Sample.rollout(.running), Sample.rollout(.succeeded))
            .on("POST /v1/apps/web/restart", .ok(Sample.app(), status: 202, operation: "op1"))
        #expect(await hivemind("app", "restart", "web", daemon: daemon).status == 0)
        #expect(daemon.log.filter { $0 == "GET /v1/operations/op1" }.count == 2)
    }

    @Test func `delete waits until the app is not found`() async throws {
        let daemon = FakeDaemon().on("DELETE /v1/apps/web", APIReply(status: 202, body: []))
            .on(
                "GET /v1/apps/web", .ok(Sample.app(status: .deleting, ready: 1)),
                .problem(Problem(.notFound, "app `web` does not exist")))
        let result = await hivemind("app", "delete", "web", "--yes", daemon: daemon)
        try expectGolden(result.transcript, "output/app_delete.txt")
        #expect(daemon.log.count == 3)
    }

    @Test func `delete asks on a terminal and takes no for an answer`() async {
        let daemon = FakeDaemon().on("DELETE /v1/apps/web", APIReply(status: 202, body: []))
        for answer in ["", "n", "maybe"] {
            let result = await hivemind(
                "app", "rm", "web", daemon: daemon, options: .init(isTTY: true, answers: [answer]))
            #expect(result.status == 1)
            #expect(result.err.contains("delete app `web`? [y/N]"))
        }
        #expect(daemon.log.isEmpty)
        let result = await hivemind("app", "rm", "web", daemon: daemon, options: .init(isTTY: true, answers: ["y"]))
        #expect(result.status == 0)
    }

    @Test func `what may be old is said to be, and data stays data`() async {
        var reply = APIReply.ok(ItemList<TaskView>(items: [], index: 1))
        reply.headers["hivemind-leaderless-milliseconds"] = "12345"
        let result = await hivemind("ps", "-o", "json", daemon: FakeDaemon().on("GET /v1/tasks", reply))
        #expect(result.status == 0 && result.err.contains("has known no leader for 12 s"), "\(result)")
        #expect(!result.out.contains("leader"))
    }

    @Test func `tasks of an unknown app are an error, not an empty list`() async {
        let daemon = FakeDaemon().on("GET /v1/tasks?app=nope", .ok(ItemList<TaskView>(items: [], index: 1)))
            .on("GET /v1/apps/nope?consistency=local", .problem(Problem(.notFound, "app `nope` does not exist")))
        #expect(await hivemind("ps", "nope", daemon: daemon).status == 6)
    }

    @Test func `replicas no node takes are listed with the reason`() async {
        let unplaced = TaskListView.Unplaced(
            app: "web", namespace: "default", service: "web", count: 2,
            reason: Reason(.memoryShort, "node `alpha`: lacks memory", hint: "add a node"))
        let daemon = FakeDaemon()
            .on(
                "GET /v1/tasks", .ok(TaskListView(items: [Sample.task("kaaaaaaaaaaa")], unplaced: [unplaced], index: 1))
            )
            .on("GET /v1/tasks?app=web", .ok(TaskListView(items: [], unplaced: [unplaced], index: 1)))
        let terminal = FakeTerminal.Options(isTTY: true)
        let all = await hivemind("ps", daemon: daemon, options: terminal)
        for shown in [all, await hivemind("ps", "web", daemon: daemon, options: terminal)] {
            let line = shown.out.split(separator: "\n").last ?? ""
            for text in ["2 not placed", "pending", "node `alpha`: lacks"] {
                #expect(line.contains(text), "\(shown)")
            }
            #expect(shown.err.contains("hivemind why app web"), "\(shown)")
        }
    }

    @Test func `log lines are prefixed once there are several tasks`() async {
        func line(_ task: TaskID, _ text: String) -> AppLogLine {
            AppLogLine(task: task, service: "web", at: FakeTerminal.now, stream: .stdout, text: text)
        }
        let lines = [line("kaaaaaaaaaaa", "one"), line("kbbbbbbbbbbb", "two")]
        let tasks = APIReply.ok(Sample.list(Sample.task("kaaaaaaaaaaa"), Sample.task("kbbbbbbbbbbb")))
        let daemon = FakeDaemon().on("GET /v1/tasks?app=web&all=true", tasks)
            .on("GET /v1/apps/web/logs?tail=2&since=2026-03-01T12%3A20%3A05.000Z", .lines(lines))
            .on("GET /v1/apps/web/logs?follow=true&task=ka", .lines([lines[0]]))
            .on("GET /v1/apps/web/logs", .lines([lines[0]]))
        let all = await hivemind("app", "logs", "web", "--tail", "2", "--since", "10m", "--timestamps", daemon: daemon)
        #expect(
            all.out == """
                kaaaaaaaaaaa | 2026-03-01T12:30:05.000Z one
                kbbbbbbbbbbb | 2026-03-01T12:30:05.000Z two

                """)
        let one = await hivemind("app", "logs", "web", "-f", "--task", "ka", daemon: daemon)
        #expect(one.out == "one\n")
        #expect(daemon.requests.last?.timeout == nil)
        let json = await hivemind("app", "logs", "web", "-o", "json", daemon: daemon)
        #expect((try? JSON.decode(AppLogLine.self, from: Data(json.out.utf8))) == lines[0])
    }

    @Test func `a notice among log lines is no data`() async {
        let notice = AppLogLine(notice: "node `beta` does not answer", at: FakeTerminal.now)
        let daemon = FakeDaemon().on("GET /v1/tasks?app=web&all=true", .ok(ItemList<TaskView>(items: [], index: 1)))
            .on("GET /v1/apps/web/logs", .lines([notice]))
        let shown = await hivemind("app", "logs", "web", daemon: daemon)
        #expect(shown.out == "" && shown.err.contains("note: node `beta` does not answer"))
    }

    @Test func `the doctor ends with 1 when a way is not healthy`() async {
        func view(_ finding: PathFinding, _ reason: Reason?) -> NetworkDoctorView {
            NetworkDoctorView(
                paths: [NetworkDoctorView.Path(from: "a", to: "b", finding: finding, reason: reason)], silent: [])
        }
        let path = "GET /v1/network/doctor"
        let well = await hivemind("network", "doctor", daemon: FakeDaemon().on(path, .ok(view(.healthy, nil))))
        #expect(well.status == 0 && well.out.contains("healthy"))
        let reason = Reason(.networkFailed, "no way", hint: "allow UDP port 4789")
        let ill = await hivemind("network", "doctor", daemon: FakeDaemon().on(path, .ok(view(.blockedUDP, reason))))
        #expect(ill.status == 1 && ill.out.contains("blocked_udp") && ill.err.contains("allow UDP port 4789"))
    }

    @Test func `logs of an unknown app end with 6`() async {
        let daemon = FakeDaemon().on("GET /v1/apps/no/logs", .problem(Problem(.notFound, "app `no` does not exist")))
            .on("GET /v1/tasks?app=no&all=true", .ok(ItemList<TaskView>(items: [], index: 1)))
        #expect(await hivemind("app", "logs", "no", daemon: daemon).status == 6)
    }

    @Test func `a config comes from a value, a file or standard input, with its condition`() async {
        let path = "PUT /v1/configs/c"
        let daemon = FakeDaemon().on(path, .ok(Sample.config))
        let options = FakeTerminal.Options(files: ["f": "of file"], input: "of input")
        _ = await hivemind("config", "set", "c", "of value", daemon: daemon, options: options)
        _ = await hivemind("config", "set", "c", "--file", "f", "--if-version", "7", daemon: daemon, options: options)
        _ = await hivemind("config", "set", "c", "-", "--create-only", daemon: daemon, options: options)
        _ = await hivemind("config", "set", "c", daemon: daemon, options: options)
        _ = await hivemind("config", "set", "--name", "c", "of name", daemon: daemon, options: options)
        let bodies = daemon.requests.map(\.body)
        #expect(
            bodies
                == ["of value", "of file", "of input", "of input", "of name"].map {
                    .bytes(Array(#"{"data":"\#($0)"}"#.utf8))
                })
        #expect(daemon.requests[1].headers["If-Match"] == "\"7\"")
        #expect(daemon.requests[2].headers["If-None-Match"] == "*")
    }

    @Test func `an archive is streamed from its file`() async {
        let daemon = FakeDaemon().on("POST /v1/images/import", .ok(Sample.list(Sample.image)))
        #expect(await hivemind("image", "import", "app.tar", daemon: daemon).status == 0)
        #expect(daemon.requests.first?.body == .file("app.tar"))
    }

    @Test func `this program's version is known without a daemon`() async {
        let daemon = FakeDaemon().fail(
            "GET /version", CLIError(.connection, "the daemon does not run", hint: "start it"))
        let table = await hivemind("version", daemon: daemon)
        #expect(table.status == 0)
        #expect(table.out.contains(programVersion))
        #expect(await hivemind("version", "-o", "json", daemon: daemon).status == 3)
    }

    @Test func `suggested commands reach the same objects`() async {
        let daemon = FakeDaemon().on("PUT /v1/volumes/data?namespace=blue", .ok(Sample.volume))
        let result = await hivemind("volume", "create", "data", "--namespace", "blue", "--socket", "/s", daemon: daemon)
        #expect(result.err.contains("hivemind volume info data --namespace blue --socket /s"))
        #expect(result.out == "volume `data` exists already\n")
    }
}
