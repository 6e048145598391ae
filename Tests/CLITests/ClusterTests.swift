// SPDX-License-Identifier: Apache-2.0
import FoundationEssentials
import Model
import Testing

@testable import CLI

struct ClusterTests {
    @Test func `the status of a cluster without a leader is told as it is`() async throws {
        var status = Sample.status
        status.leader = nil
        status.appliedIndex = 50
        status.log = nil
        status.fsync = nil
        status.snapshot = nil
        status.conditions = ["no leader for 12s: 1 of 2 voters that are needed answers"]
        let daemon = FakeDaemon().on("GET /v1/cluster", .ok(Sample.leaderless)).on("GET /v1/status", .ok(status))
        let result = await hivemind("cluster", "status", daemon: daemon)
        try expectGolden(result.transcript, "output/cluster_status_without_a_leader.txt")
        #expect(daemon.log == ["GET /v1/cluster", "GET /v1/status"])
    }

    @Test func `a member that does not take this one is named with its words`() async {
        var cluster = Sample.leaderless
        cluster.members[1].refusal = "the other side refuses: you were removed"
        let daemon = FakeDaemon().on("GET /v1/cluster", .ok(cluster)).on("GET /v1/status", .ok(Sample.status))
        let text = await hivemind("cluster", "status", daemon: daemon).out
        #expect(text.contains("beta: the other side refuses: you were removed"), "\(text)")
        let json = await hivemind("cluster", "status", "-o", "json", daemon: daemon).out
        #expect(json.contains(#""refusal": "the other side refuses: you were removed""#), "\(json)")
    }

    @Test func `leadership goes to whom is named, in either form, or to whom the leader chooses`() async {
        let path = "POST /v1/cluster/transfer-leader"
        let daemon = FakeDaemon().on(path, .ok(LeaderView(leader: "beta", previous: "alpha", term: 3)))
        #expect(await hivemind("cluster", "transfer-leader", daemon: daemon).status == 0)
        #expect(await hivemind("cluster", "transfer-leader", "beta", daemon: daemon).status == 0)
        #expect(await hivemind("cluster", "transfer-leader", "--name", "beta", daemon: daemon).status == 0)
        #expect(await hivemind("cluster", "transfer-leader", "beta", "--name", "x", daemon: daemon).status == 2)
        #expect(
            daemon.requests.map(\.body)
                == ["{}", #"{"to":"beta"}"#, #"{"to":"beta"}"#].map { .bytes(Array($0.utf8)) })
    }

    @Test(arguments: [
        (Problem.Code.notFound, Int32(6)), (.conflict, 7), (.timeout, 10), (.noLeader, 1),
    ])
    func `a transfer that fails ends with the code of its reason`(code: Problem.Code, status: Int32) async {
        let daemon = FakeDaemon().on("POST /v1/cluster/transfer-leader", .problem(Problem(code, "it cannot be")))
        let result = await hivemind("cluster", "transfer-leader", "beta", daemon: daemon)
        #expect(result.status == status)
        #expect(result.err.contains("error: it cannot be") && result.err.contains("hint: "))
    }

    @Test(arguments: ["linearizable", "leader", "local"])
    func `reads say how current they must be`(level: String) async {
        let daemon = FakeDaemon().on("GET /v1/configs/c?consistency=\(level)", .ok(Sample.config))
            .on("GET /v1/apps?consistency=\(level)", .ok(Sample.list(Sample.app())))
            .on("GET /v1/nodes?consistency=\(level)", .ok(Sample.list(Sample.node)))
        #expect(await hivemind("config", "get", "c", "--consistency", level, daemon: daemon).status == 0)
        #expect(await hivemind("app", "ls", "--consistency", level, daemon: daemon).status == 0)
        #expect(await hivemind("node", "ls", "--consistency", level, daemon: daemon).status == 0)
        #expect(await hivemind("app", "ls", "--consistency", "maybe", daemon: daemon).status == 2)
    }
}

struct EventsTests {
    /// An answer of frames, each an id and what it carries.
    static func stream(_ frames: (id: String?, event: EventView?)...) -> APIReply {
        var text = ": bookmark 40\nid: 40\n\n"
        for frame in frames {
            if let id = frame.id { text += "id: \(id)\n" }
            if let event = frame.event {
                let data = (try? JSON.encode(event)).map { String(decoding: $0, as: UTF8.self) } ?? ""
                text += "event: \(event.kind)\ndata: \(data)\n"
            }
            text += "\n"
        }
        return APIReply(status: 200, body: Array(text.utf8))
    }

    static let gone = Problem(.compacted, "events after 43 are no longer kept")

    @Test(arguments: ["table", "wide", "json", "yaml", "name"])
    func `events are shown as they come`(format: String) async throws {
        let daemon = FakeDaemon().on(
            "GET /v1/events",
            Self.stream(
                ("41", Sample.event(41, "app", "web", .created, object: .app(Sample.app(ready: 1)))),
                ("42.0", Sample.event(42, "task", "kaaaaaaaaaaa", object: .task(Sample.task("kaaaaaaaaaaa")))),
                ("42", Sample.event(42, "node", "alpha", namespace: nil, object: .node(Sample.node))),
                ("43", Sample.event(43, "config", "a\u{1B}[31m", .deleted, namespace: "blue"))))
        // What ends it here: the daemon says at the next attempt that it kept nothing after that place.
        daemon.on("GET /v1/events?after=43", .problem(Self.gone))
        let result = await hivemind("events", "-o", format, daemon: daemon)
        try expectGolden(result.transcript, "output/events_-o_\(format).txt")
    }

    @Test func `a broken stream is taken up after the last id, bookmarks included, and nothing comes twice`() async {
        let daemon = FakeDaemon()
            .on(
                "GET /v1/events?after=40&kind=config",
                Self.stream(("41", Sample.event(41, "config", "a")), ("45", nil))
            )
            .fail("GET /v1/events?after=45&kind=config", CLIError(.connection, "the daemon does not run"))
            .on(
                "GET /v1/events?after=45&kind=config", Self.stream(("46.0", Sample.event(46, "config", "b")))
            )
            .on("GET /v1/events?after=46.0&kind=config", .problem(Problem(.noLeader, "no leader")))
            .on("GET /v1/events?after=46.0&kind=config", .problem(Self.gone))
        let result = await hivemind("events", "--after", "40", "--kind", "config", "-o", "name", daemon: daemon)
        #expect(result.out == "config/a\nconfig/b\n")
        #expect(result.status == 1)
        #expect(result.err.contains("events after 43 are no longer kept"))
        #expect(
            daemon.log.map { $0.split(separator: "=")[1] } == [
                "40&kind", "45&kind", "45&kind", "46.0&kind", "46.0&kind",
            ])
        #expect(daemon.requests.allSatisfy { $0.timeout == nil && $0.silence == EventWatch.silence })
    }

    @Test func `a daemon that cannot be reached at first is an error at once`() async {
        let daemon = FakeDaemon().fail(
            "GET /v1/events", CLIError(.connection, "the daemon does not run", hint: "start"))
        #expect(await hivemind("events", daemon: daemon).status == 3)
        #expect(daemon.log.count == 1)
    }

    @Test func `events lost in the middle of a stream end it with what to do`() async {
        var text = String(decoding: Self.stream(("41", Sample.event(41, "config", "a"))).body, as: UTF8.self)
        let data = (try? JSON.encode(Self.gone)).map { String(decoding: $0, as: UTF8.self) } ?? ""
        text += "event: compacted\ndata: \(data)\n\n"
        let daemon = FakeDaemon().on("GET /v1/events", APIReply(status: 200, body: Array(text.utf8)))
        let result = await hivemind("events", "-o", "name", daemon: daemon)
        #expect(result.status == 1 && result.out == "config/a\n")
        #expect(result.err.contains("hint: list what there is now"))
    }

    @Test func `Ctrl-C ends it with 0`() async {
        let daemon = FakeDaemon().on("GET /v1/events", Self.stream())
        let result = await hivemind("events", daemon: daemon, options: .init(isInterrupted: true))
        #expect(result.status == 0)
        #expect(result.err.isEmpty)
    }

    @Test func `frames are read as the standard says`() {
        var reader = EventFrame.Reader()
        func take(_ text: String) -> EventFrame? { reader.take(Array(text.utf8)) }
        #expect(take("") == nil)
        #expect(take(": comment") == nil)
        #expect(take("") == nil)
        for line in ["retry: 10", "id:7\r", "event: x", "data: a", "data:  b", "data"] { #expect(take(line) == nil) }
        #expect(take("\r") == EventFrame(id: "7", event: "x", data: Array("a\n b\n".utf8)))
        #expect(take("data: c") == nil)
        #expect(take("") == EventFrame(id: nil, event: nil, data: Array("c".utf8)))
    }
}
