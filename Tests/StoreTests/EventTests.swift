// SPDX-License-Identifier: Apache-2.0
import Model
import Raft
import Store
import TestSupport
import Testing

/// What happened, told once, in order, and without a gap or with a word that there is one.
@Suite struct EventTests {
    typealias F = StateFixture

    private func words(_ page: EventPage) -> [String] {
        guard case .events(let events, _) = page else { return ["compacted"] }
        return events.map {
            "\($0.index).\($0.sub) \($0.kind.rawValue) \($0.namespace)/\($0.name) \($0.change.rawValue)"
        }
    }

    private func all(_ fixture: F, after index: UInt64) throws -> [String] {
        words(try fixture.state.events(after: index, limit: 1_000))
    }

    @Test func `a deploy, its tasks and its end are told`() throws {
        let fixture = try F()
        #expect(try all(fixture, after: 0) == ["1.0 node /node1 created"])
        try fixture.apply(F.put("x", [F.service("a", volumes: ["v"]), F.service("b")]))
        #expect(
            try all(fixture, after: 1) == [
                "2.0 app default/x created", "2.1 service default/x/a created", "2.2 service default/x/b created",
                "2.3 volume default/v created",
            ])
        try fixture.assign("x", "a", id: "a1", offset: 2)
        #expect(try all(fixture, after: 2) == ["3.0 volume default/v updated", "3.1 task default/a1 created"])
        try fixture.record("a1", TaskStatus(state: .running, ready: true))
        try fixture.record("a1", TaskStatus(state: .running, ready: true))
        #expect(try all(fixture, after: 3) == ["4.0 task default/a1 updated"])
        try fixture.endRollout("x", .succeeded)
        #expect(try all(fixture, after: 5) == ["6.0 app default/x updated"])
        let app = try #require(try fixture.state.read { try $0.app(ObjectKey(name: "x")) })
        guard case .events(let ended, _) = try fixture.state.events(after: 5, limit: 9) else { return }
        #expect(ended.map(\.version) == [app.version], "the end of a rollout is no change of the app's spec")
        try fixture.apply(F.put("x", [F.service("a", volumes: ["v"])]))
        #expect(try all(fixture, after: 6).contains("7.2 service default/x/b updated"))
        try fixture.endRollout("x", .succeeded)
        #expect(try all(fixture, after: 7) == ["8.0 app default/x updated", "8.1 service default/x/b deleted"])
        try fixture.apply(.deleteApp(AppChange(app: ObjectKey(name: "x"))))
        try fixture.apply(.stopTasks(StopTasks(tasks: ["a1"], reason: Reason(.stopped, "gone"))))
        try fixture.record("a1", TaskStatus(state: .stopped))
        try fixture.apply(.removeApp(AppChange(app: ObjectKey(name: "x"))))
        #expect(
            try all(fixture, after: 11) == [
                "12.0 task default/a1 deleted", "12.1 service default/x/a deleted", "12.2 app default/x deleted",
            ])
        try fixture.apply(.deleteVolume(VolumeChange(volume: ObjectKey(name: "v"))))
        try fixture.apply(.removeVolume(VolumeChange(volume: ObjectKey(name: "v"))))
        try fixture.apply(.removeVolume(VolumeChange(volume: ObjectKey(name: "v"))))
        #expect(try all(fixture, after: 12) == ["13.0 volume default/v updated", "14.0 volume default/v deleted"])
    }

    @Test func `what was refused or repeated is no event, and live events are those of the table`() throws {
        let fixture = try F()
        let key = ObjectKey(name: "c")
        var live: [StateEvent] = []
        func apply(_ change: Change, _ request: String?) throws {
            let input = StateMachine.Input(
                index: try fixture.state.read { try $0.meta().appliedIndex } + 1, term: 1,
                command: Command(request: request, at: Timestamp(milliseconds: 1), change: change))
            live += try fixture.state.apply([input]).touched.events
        }
        try apply(.putConfig(PutConfig(config: key, data: "1", condition: .absent)), "r")
        try apply(.putConfig(PutConfig(config: key, data: "1", condition: .absent)), "r")
        try apply(.putConfig(PutConfig(config: key, data: "2", condition: .absent)), nil)
        try apply(.putConfig(PutConfig(config: key, data: "2", condition: .version(2))), nil)
        try apply(.deleteConfig(DeleteConfig(config: key, condition: .none)), nil)
        try apply(.deleteConfig(DeleteConfig(config: key, condition: .none)), nil)
        let expected = ["2.0 config default/c created", "5.0 config default/c updated", "6.0 config default/c deleted"]
        #expect(try all(fixture, after: 1) == expected)
        #expect(try fixture.state.events(after: 1, limit: 100) == .events(live, through: 7))
        #expect(live.map(\.version) == [2, 5, 6])
    }

    @Test func `a refusal half way through leaves no event behind`() throws {
        let fixture = try F()
        try fixture.apply(F.put("x", [F.service("a", ports: [F.port(8080)])]))
        let before = try all(fixture, after: 0)
        #expect(try fixture.refusal(F.put("y", [F.service("b"), F.service("c", ports: [F.port(8080)])])) != nil)
        try fixture.apply(.putConfig(PutConfig(config: ObjectKey(name: "c"), data: "", condition: .none)))
        #expect(try all(fixture, after: 0) == before + ["4.0 config default/c created"])
    }

    @Test func `pages have no gap whatever their size and where they go on`() throws {
        let fixture = try F()
        for number in 0..<6 {
            try fixture.apply(F.put("x\(number)", (0...number % 3).map { F.service("s\($0)") }))
            try fixture.apply(.putConfig(PutConfig(config: ObjectKey(name: "c"), data: "\(number)", condition: .none)))
        }
        let everything = try all(fixture, after: 0)
        for limit in 1...9 {
            var told: [String] = []
            var after: UInt64 = 0
            while true {
                let page = try fixture.state.events(after: after, limit: limit)
                guard case .events(let events, let through) = page else { return }
                told += words(page)
                #expect(events.last.map { $0.index <= through } ?? true)
                if events.isEmpty { break }
                after = through
            }
            #expect(after == 13)
            #expect(told == everything, "limit \(limit)")
        }
        // In the middle of one entry, as after a connection that broke there.
        #expect(words(try fixture.state.events(after: 2, sub: 0, limit: 1)) == ["2.1 service default/x0/s0 created"])
        #expect(try fixture.state.events(after: 1_000, limit: 5) == .events([], through: 13))
    }

    @Test func `what is no longer kept is said to be gone`() throws {
        let state = try StateMachine(path: nil)
        let put = Change.putConfig(PutConfig(config: ObjectKey(name: "c"), data: "", condition: .none))
        _ = try state.apply(
            (UInt64(1)...50_112).map { index in
                let change = index <= 200 ? Command(at: Timestamp(milliseconds: 1), change: put) : nil
                return .init(index: index, term: 1, command: change)
            })
        #expect(try state.events(after: 0, limit: 5) == .compacted(oldest: 113, applied: 50_112))
        #expect(try state.events(after: 111, limit: 5) == .compacted(oldest: 113, applied: 50_112))
        #expect(try state.events(after: 112, sub: 0, limit: 5) == .compacted(oldest: 113, applied: 50_112))
        guard case .events(let rest, let through) = try state.events(after: 112, limit: 100) else {
            Issue.record("events after 112 are kept")
            return
        }
        #expect(rest.map(\.index) == Array(113...200))
        #expect(through == 50_112)
    }

    @Test func `the version of an event tells whether the object is still the same`() throws {
        let fixture = try F()
        try fixture.apply(F.put("x", [F.service("a", volumes: ["v"])]))
        try fixture.assign("x", "a", id: "a1", offset: 2)
        try fixture.apply(.putConfig(PutConfig(config: ObjectKey(name: "c"), data: "", condition: .none)))
        try fixture.apply(.putConfig(PutConfig(config: ObjectKey(name: "c"), data: "", condition: .none)))
        guard case .events(let events, _) = try fixture.state.events(after: 0, limit: 100) else { return }
        let same = try fixture.state.read { view in
            try events.filter { try view.version(of: $0) == $0.version }.map { "\($0.index) \($0.kind.rawValue)" }
        }
        #expect(same == ["1 node", "2 app", "2 service", "3 volume", "3 task", "5 config"])
    }

    @Test func `membership is state and its change an event`() throws {
        let directory = try TemporaryDirectory("state")
        defer { directory.remove() }
        let first = Membership(voters: [1, 2, 3])
        let state = try StateMachine(path: directory.file("s"), initialMembership: first)
        #expect(try state.read { try $0.meta().configuration } == ConfigurationPoint(index: 0, membership: first))
        let next = Membership(voters: [1, 2], learners: [4], removed: [3])
        let entry = Entry(index: 1, term: 2, kind: .configuration, payload: next.encoded())
        let touched = try state.apply([try .init(entry)]).touched
        let point = ConfigurationPoint(index: 1, membership: next)
        #expect(touched.configuration == point)
        #expect(words(try state.events(after: 0, limit: 9)) == ["1.0 cluster /membership updated"])
        // What a file holds is not replaced by what a later start was told.
        let again = try StateMachine(path: directory.file("s"), initialMembership: first)
        #expect(try again.read { try $0.meta().configuration } == point)
        #expect(throws: Command.Unknown.self) {
            try StateMachine.Input(Entry(index: 2, term: 2, kind: .configuration, payload: [9]))
        }
    }
}
