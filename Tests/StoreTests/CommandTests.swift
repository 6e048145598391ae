// SPDX-License-Identifier: Apache-2.0
import Model
import Store
import Testing

/// Commands as bytes and as applied: what was written is what is read, once.
@Suite struct CommandTests {
    typealias F = StateFixture

    /// One of every kind.
    static let changes: [Change] = {
        let key = ObjectKey(namespace: "team", name: "web")
        let spec = ServiceSpec(
            name: "web", image: "web:1", imageDigest: "sha256:1", replicas: 2, command: ["a", "b c"],
            environment: ["MY_VAR": "1", "myVar": "2", "my_var": "3", "URL": "http://x/ü"], labels: ["App_Name": "x"],
            mounts: [
                MountSpec(source: .volume("data"), target: "/data"),
                MountSpec(source: .tmpfs(sizeBytes: 1 << 20), target: "/tmp"),
                MountSpec(source: .bind("/srv"), target: "/srv", readOnly: true),
            ], ports: [PortSpec(hostPort: nil, containerPort: 80, protocol: .udp)], restart: .onFailure)
        let status = TaskStatus(
            state: .running, ready: true, container: "t.1", pid: 5, restarts: 1, exitCode: 2,
            reason: Reason(.exited, "x", hint: "y"), startedAt: Timestamp(milliseconds: 1_700_000_000_123))
        return [
            .initializeCluster(InitializeCluster(clusterID: "c", ranges: .standard)),
            .putNode(F.node("n", subnet: "10.210.0.0/24")),
            .putApp(PutApp(spec: AppSpec(key: key, services: [spec]), condition: .version(.max))),
            .scaleService(ScaleService(app: key, service: "web", replicas: 3)),
            .restartApp(AppChange(app: key)), .deleteApp(AppChange(app: key)), .removeApp(AppChange(app: key)),
            .assignTasks(
                AssignTasks(tasks: [
                    NewTask(
                        id: "t", app: key, service: "web", generation: 1, node: "n", address: IPv4Address(value: 9))
                ])),
            .stopTasks(StopTasks(tasks: ["t"], reason: Reason(.replaced, "r"))),
            .recordTasks(RecordTasks(reports: [TaskReport(task: "t", status: status)])),
            .removeTasks(RemoveTasks(tasks: ["t"])),
            .endRollout(EndRollout(id: "deploy-1", outcome: .succeeded)),
            .endRollout(EndRollout(id: "deploy-1", outcome: .rolledBack)),
            .endRollout(EndRollout(id: "deploy-1", outcome: .failed(Reason(.crashLoop, "r"), task: "t"))),
            .putVolume(PutVolume(volume: key, node: nil)), .deleteVolume(VolumeChange(volume: key)),
            .removeVolume(VolumeChange(volume: key)),
            .putConfig(PutConfig(config: key, data: "\u{0}\"\n€", condition: .absent)),
            .deleteConfig(DeleteConfig(config: key, condition: .none)),
        ]
    }()

    @Test func `every kind of command comes back from its bytes as it was`() throws {
        var kinds: Set<[UInt8]> = []
        for change in Self.changes {
            let command = Command(request: "r", at: Timestamp(milliseconds: 1_700_000_000_001), change: change)
            let bytes = try command.encoded()
            #expect(try Command(decoding: bytes) == command)
            #expect(Array(bytes.prefix(2)) == [0, 1])
            kinds.insert(Array(bytes[2..<4]))
        }
        #expect(kinds.sorted { $0[1] < $1[1] } == (1...17).map { [0, UInt8($0)] })
    }

    @Test func `a kind, a version or a body this build does not know is an error that names it`() throws {
        let good = try Command(at: Timestamp(milliseconds: 0), change: Self.changes[3]).encoded()
        for (place, value) in [(1, UInt8(2)), (3, 18), (3, 0), (2, 1), (4, 0)] {
            var bytes = good
            bytes[place] = value
            #expect(throws: Command.Unknown.self) { try Command(decoding: bytes) }
        }
        #expect(throws: Command.Unknown.self) { try Command(decoding: [0, 1, 0]) }
        #expect(throws: Command.Unknown.self) { try Command(decoding: Array(good.dropLast())) }
    }

    @Test func `names of variables and labels survive the way through the state`() throws {
        let fixture = try F()
        try fixture.apply(Self.changes[2])
        // The condition names a version that is not there.
        guard case .putApp(var put) = Self.changes[2] else { return }
        put.condition = .none
        try fixture.apply(.putApp(put))
        let spec = try #require(try fixture.state.read { try $0.services(namespace: "team", app: "web") }.first?.spec)
        #expect(spec.environment == put.spec.services[0].environment)
        #expect(spec.labels == ["App_Name": "x"])
        #expect(spec.mounts == put.spec.services[0].mounts)
    }

    @Test func `the same request id answers the same and changes nothing`() async throws {
        let fixture = try F()
        let key = ObjectKey(name: "c")
        let first = try fixture.apply(
            .putConfig(PutConfig(config: key, data: "1", condition: .absent)), request: "one")
        let refused = try fixture.apply(
            .putConfig(PutConfig(config: key, data: "2", condition: .absent)), request: "two")
        let unchanged = try fixture.apply(.putVolume(PutVolume(volume: key, node: nil)))
        #expect(unchanged.outcome == .done(.created))
        let again = try fixture.apply(.putVolume(PutVolume(volume: key, node: nil)), request: "three")
        #expect(again.outcome == .done(.unchanged))
        let before = try await fixture.dump().filter { !$0.hasPrefix("meta") }
        for (request, answer) in [("one", first), ("two", refused), ("three", again)] {
            let repeated = try fixture.apply(
                .putConfig(PutConfig(config: key, data: "other", condition: .none)), request: request)
            #expect(repeated.outcome == answer.outcome, "\(request)")
        }
        #expect(try await fixture.dump().filter { !$0.hasPrefix("meta") } == before)
    }

    @Test func `answers are forgotten after an hour of log time`() async throws {
        let fixture = try F()
        for number in 0..<5 {
            try fixture.apply(
                .putConfig(PutConfig(config: ObjectKey(name: "c"), data: "", condition: .none)),
                request: "r\(number)", after: 1_800_000)
        }
        #expect(try await fixture.state.query("SELECT id FROM requests ORDER BY id").rows.count == 3)
    }

    @Test func `entries already applied are skipped and index and rows move together`() async throws {
        let fixture = try F()
        for number in 1...5 {
            try fixture.apply(.putConfig(PutConfig(config: ObjectKey(name: "c\(number)"), data: "", condition: .none)))
        }
        let before = try await fixture.dump()
        let (results, touched) = try fixture.state.apply(fixture.log)
        #expect(results.isEmpty)
        #expect(touched.isEmpty)
        #expect(try await fixture.dump() == before)
    }

    @Test func `replaying a log gives the same rows whatever the batches are`() async throws {
        let fixture = try F()
        try fixture.apply(F.put("x", [F.service("a", volumes: ["v"]), F.service("b", ports: [F.port(nil)])]))
        try fixture.assign("x", "a", id: "a1", offset: 2)
        try fixture.record("a1", TaskStatus(state: .running, ready: true, container: "a1.0", pid: 3))
        try fixture.endRollout("x", .succeeded)
        try fixture.apply(F.put("x", [F.service("a", image: "web:2")]), request: "r")
        try fixture.apply(F.put("y", [F.service("y", ports: [F.port(8080)])]))
        try fixture.fail("x")
        try fixture.endRollout("x", .rolledBack)
        try fixture.apply(.deleteApp(AppChange(app: ObjectKey(name: "y"))))
        try fixture.apply(.removeApp(AppChange(app: ObjectKey(name: "y"))))
        let expected = try await fixture.dump()
        for size in [1, 3, 100] {
            let replica = try StateMachine(path: nil)
            for start in stride(from: 0, to: fixture.log.count, by: size) {
                // Half of each batch comes twice, as after a crash.
                _ = try replica.apply(
                    Array(fixture.log[max(0, start - size / 2)..<min(start + size, fixture.log.count)]))
            }
            #expect(try await F.dump(replica) == expected, "batches of \(size)")
        }
    }

    @Test func `a change that contradicts the state is refused and the next one applies`() throws {
        let fixture = try F()
        #expect(try fixture.refusal(.putNode(F.node("node2", subnet: "10.210.0.0/24")))?.code == .conflict)
        #expect(try fixture.apply(.putNode(F.node("node2", subnet: "10.210.1.0/24"))).outcome == .done(.changed))
    }
}
