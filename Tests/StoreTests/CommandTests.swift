// SPDX-License-Identifier: Apache-2.0
import Model
import Store
import TestSupport
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
            .putConfig(PutConfig(config: key, data: "", condition: .version(7))),
            .deleteConfig(DeleteConfig(config: key, condition: .none)), .compareState,
            .putAuthority(CertificateTests.authority("a")),
            .putJoinToken(
                JoinTokenRow(
                    id: "a", hash: "00", role: .observer, usesLeft: nil, createdAt: Timestamp(milliseconds: 1),
                    expiresAt: Timestamp(milliseconds: 2))),
            .removeJoinToken(JoinTokenChange(id: "a")),
            .admitNode(AdmitNode(token: "a", node: F.node("n", subnet: "10.210.0.0/24"))),
            .removeNode(NodeChange(node: NodeID("n"))),
            .setNode(
                SetNode(
                    node: NodeID("n"), availability: .drained, pin: .voter,
                    labels: ["Zone_Name": "x", "zoneName": nil, "zone_name": ""], addTaints: ["a=b"],
                    removeTaints: ["c"])),
            .setLiveness(SetLiveness(items: [.init(node: NodeID("n"), liveness: .suspect)])),
            .putAPIToken(
                APITokenRow(
                    id: "a", name: "ü", hash: "00", role: .operator, namespace: nil,
                    createdAt: Timestamp(milliseconds: 1), expiresAt: Timestamp(milliseconds: 2))),
            .removeAPIToken(APITokenChange(id: "a")), .setCluster(SetCluster(downAfterMilliseconds: 9_000)),
            .moveTasks(MoveTasks(tasks: ["t"], moving: true)), .giveMember(NodeChange(node: NodeID("n"))),
            .succeedCluster(SucceedCluster(clusterID: "new", previousClusterID: "old")),
            .rotateJoinToken(RotateJoinToken(id: "a", newID: "b", hash: "00")),
            .changeCertificates(.record(node: "n", CertificateTests.shown("s", "a", trusts: ["a", "b"]))),
            .changeCertificates(.renew(["n"])), .changeAuthority(.add(CertificateTests.authority("a"))),
            .changeAuthority(.issue("a")), .changeAuthority(.drop("a")),
        ]
    }()

    @Test func `every kind of command comes back from its bytes as it was`() throws {
        var kinds: Set<[UInt8]> = []
        for change in Self.changes {
            let command = Command(request: "r", at: Timestamp(milliseconds: 1_700_000_000_001), change: change)
            let bytes = try command.encoded()
            #expect(try Command(decoding: bytes) == command)
            #expect(Array(bytes.prefix(2)) == [0, 2])
            kinds.insert(Array(bytes[2..<4]))
            let anonymous = Command(at: Timestamp(milliseconds: 0), change: change)
            #expect(try Command(decoding: anonymous.encoded()) == anonymous)
        }
        #expect(
            kinds.sorted { $0[1] < $1[1] }
                == (Array(1...25) + [30, 31, 32, 33, 35, 36, 40, 41, 46]).map { [0, UInt8($0)] })
    }

    @Test func `a kind, a version or a body this build does not know is an error that names it`() throws {
        let good = try Command(at: Timestamp(milliseconds: 0), change: Self.changes[3]).encoded()
        for (place, value) in [(1, UInt8(1)), (3, 19), (3, 0), (2, 1), (4, 255), (12, 255), (14, 0)] {
            var bytes = good
            bytes[place] = value
            #expect(throws: Command.Unknown.self) { try Command(decoding: bytes) }
        }
        #expect(throws: Command.Unknown.self) { try Command(decoding: [0, 2, 0]) }
        #expect(throws: Command.Unknown.self) { try Command(decoding: Array(good.dropLast())) }
    }

    @Test func `a leader stamps a command without reading it`() throws {
        for change in Self.changes {
            let early = Command(request: "r", at: Timestamp(milliseconds: 5), change: change)
            var bytes = try early.encoded()
            let late = Timestamp(milliseconds: 1_800_000_000_123)
            #expect(Command.time(of: bytes) == early.at)
            #expect(Command.stamp(&bytes, at: late))
            #expect(Command.time(of: bytes) == late)
            #expect(try Command(decoding: bytes) == Command(request: "r", at: late, change: change))
            // A clock that is off beyond all years still gives a command everybody can read.
            #expect(Command.stamp(&bytes, at: Timestamp(milliseconds: .min)))
            #expect(try Command(decoding: bytes).at == Timestamp(milliseconds: 0))
        }
        for var bytes: [UInt8] in [[], [0, 2], [0, 1] + [UInt8](repeating: 0, count: 30)] {
            let before = bytes
            #expect(!Command.stamp(&bytes, at: Timestamp(milliseconds: 1)))
            #expect(bytes == before)
            #expect(Command.time(of: bytes) == nil)
        }
    }

    @Test(arguments: UInt64(1)...8)
    func `any bytes are a command or unknown, and what is read is written as it was`(seed: UInt64) throws {
        var random = SeededRandom(seed: seed)
        let valid = try Self.changes.map {
            try Command(request: "request", at: Timestamp(milliseconds: 1_700_000_000_000), change: $0).encoded()
        }
        var commands = 0
        for _ in 0..<1_500 {
            var bytes = valid[Int.random(in: 0..<valid.count, using: &random)]
            for _ in 0...Int.random(in: 0..<3, using: &random) where !bytes.isEmpty {
                let place = Int.random(in: 0..<bytes.count, using: &random)
                switch Int.random(in: 0..<5, using: &random) {
                case 0: bytes[place] = UInt8.random(in: 0...255, using: &random)
                case 1: bytes[place] ^= 1 << UInt8.random(in: 0..<8, using: &random)
                case 2: bytes.removeSubrange(place...)
                case 3: bytes.insert(UInt8.random(in: 0...255, using: &random), at: place)
                default: bytes.remove(at: place)
                }
            }
            do {
                let command = try Command(decoding: bytes)
                #expect(try Command(decoding: command.encoded()) == command, "seed \(seed): \(bytes)")
                commands += 1
            } catch let error as Command.Unknown {
                #expect(!error.detail.isEmpty)
            }
        }
        // Many mutations hit the time, the request id or a text.
        #expect(commands > 30)
    }

    @Test func `a request id too long for the log is refused when it is proposed`() throws {
        let command = Command(
            request: String(repeating: "r", count: Command.requestBytesMax + 1), at: Timestamp(milliseconds: 0),
            change: .compareState)
        #expect(throws: Problem.self) { try command.encoded() }
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
            #expect(repeated.version == answer.index, "\(request)")
            #expect(repeated.index > answer.index)
        }
        #expect(try await fixture.dump().filter { !$0.hasPrefix("meta") } == before)
    }

    @Test func `an answer with a rollout comes again as it was`() throws {
        let fixture = try F()
        let first = try fixture.apply(F.put("x", [F.service("a")]), request: "r")
        let again = try fixture.apply(F.put("x", [F.service("a", image: "other")]), request: "r")
        #expect(again.outcome == .done(.rollout(id: "deploy-2", created: true)))
        #expect(again.outcome == first.outcome)
    }

    @Test func `answers are forgotten after an hour of log time`() async throws {
        let fixture = try F()
        let put = Change.putConfig(PutConfig(config: ObjectKey(name: "c"), data: "", condition: .none))
        for number in 0..<5 { try fixture.apply(put, request: "r\(number)", after: 1_800_000) }
        while fixture.log.count < 64 { try fixture.apply(put) }
        let kept = try await fixture.state.query("SELECT id FROM requests ORDER BY id").rows
        #expect(kept == [[.text("r3")], [.text("r4")]])
    }

    @Test func `answers and events are bounded by count, too`() async throws {
        let state = try StateMachine(path: nil)
        let put = Change.putConfig(PutConfig(config: ObjectKey(name: "c"), data: "", condition: .none))
        let at = Timestamp(milliseconds: 1)
        var index: UInt64 = 0
        func apply(_ request: String?) throws {
            index += 1
            _ = try state.apply([
                .init(index: index, term: 1, command: Command(request: request, at: at, change: put))
            ])
        }
        for number in 0..<200 { try apply("early \(number)") }
        func pass(_ end: UInt64) throws {
            _ = try state.apply((index + 1...end).map { .init(index: $0, term: 1, command: nil) })
            index = end
        }
        try pass(50_200)
        let compacted = try await state.read { try $0.meta().eventsCompacted }
        #expect(compacted == 50_176 - 50_000)
        #expect(
            try await state.query("SELECT min(log_index), count(*) FROM events").rows == [
                [.integer(177), .integer(24)]
            ])
        #expect(try await state.query("SELECT count(*) FROM requests").rows == [[.integer(200)]])
        try pass(100_200)
        #expect(try await state.query("SELECT count(*) FROM events").rows == [[.integer(0)]])
        #expect(
            try await state.query("SELECT min(applied_index), count(*) FROM requests").rows == [
                [.integer(161), .integer(40)]
            ])
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
