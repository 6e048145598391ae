// SPDX-License-Identifier: Apache-2.0
import Model
import Store
import TestSupport
import Testing

@testable import Daemon

@Suite struct ClusterLogTests {
    private static func line(_ number: Int, _ task: TaskID = "t") -> AppLogLine {
        AppLogLine(
            task: task, service: "web", at: Timestamp(milliseconds: Int64(number)), stream: .stdout, text: "\(number)")
    }

    private static func stream(_ numbers: [Int]) -> AsyncThrowingStream<AppLogLine, any Error> {
        AsyncThrowingStream { output in
            for number in numbers { output.yield(line(number)) }
            output.finish()
        }
    }

    @Test func `sources are merged by time, each opened once`() async throws {
        let sources = [[1, 4, 6], [2, 3, 7], [], [5]].enumerated().map { index, numbers in
            LogSource(id: "\(index)") { Self.stream(numbers) }
        }
        var seen: [String] = []
        for try await line in LogMerger.merge(sources, follow: false) { seen.append(line.text) }
        #expect(seen == (1...7).map { "\($0)" })
    }

    @Test func `a session is read page by page, in order and to its end`() async throws {
        let sessions = LogSessions(silenceMax: .seconds(300))
        let number = try await sessions.open(Self.stream(Array(1...1_000)), for: 7)
        var seen: [String] = []
        while true {
            let page = try await sessions.page(number, for: 7)
            #expect(page.lines.count <= 256)
            seen += page.lines.map(\.text)
            if page.isEnd { break }
        }
        #expect(seen == (1...1_000).map { "\($0)" })
        await #expect(throws: Problem.self) { _ = try await sessions.page(number, for: 7) }
    }

    @Test func `a session belongs to the node that opened it, and one node has a bounded number`() async throws {
        let sessions = LogSessions(silenceMax: .seconds(300))
        let number = try await sessions.open(Self.stream([1]), for: 7)
        await #expect(throws: Problem.self) { _ = try await sessions.page(number, for: 8) }
        for _ in 1..<LogSessions.perNodeMax { _ = try await sessions.open(Self.stream([1]), for: 7) }
        let refused = await #expect(throws: Problem.self) { _ = try await sessions.open(Self.stream([1]), for: 7) }
        #expect(refused?.code == .busy)
        _ = try await sessions.open(Self.stream([1]), for: 8)
    }

    @Test func `a reader that goes ends what it read from`() async throws {
        let sessions = LogSessions(silenceMax: .seconds(300))
        let (stream, output) = AsyncThrowingStream.makeStream(of: AppLogLine.self, throwing: (any Error).self)
        let (ended, end) = AsyncStream.makeStream(of: Void.self)
        output.onTermination = { _ in end.finish() }
        let number = try await sessions.open(stream, for: 7)
        await sessions.close(number, for: 7)
        for await _ in ended {}
    }

    @Test func `what both ends saw before a join is put together`() throws {
        let node = PreflightAnswer.Node(
            name: "alpha", address: "192.0.2.1", peerAddress: "192.0.2.1:4484", apiAddress: "192.0.2.1:4483")
        let address = try #require(IPv4Address("192.0.2.1"))
        func judge(_ there: Knocks, _ here: Knocks, closed: [Int: String] = [:]) -> [JoinFinding.Check] {
            let answer = PreflightAnswer(
                findings: [], ranges: .standard, nodes: [node],
                knocks: ["alpha": KnockAnswer(closed: closed, heard: there)])
            return Preflight.judge(answer, [address: here], ports: [4484, 4483]).map(\.check)
        }
        #expect(judge(.all, .all) == [])
        #expect(judge([], .all) == [.udpOut])
        #expect(judge(.all, []) == [.udpIn])
        #expect(judge([.small], .all) == [.mtu])
        #expect(judge(.all, [.small]) == [.mtu])
        #expect(judge([], [], closed: [4484: "no answer", 4483: "no answer"]) == [.tcpIn, .tcpIn, .udpOut, .udpIn])
    }

    @Test func `several things in the way are one refusal that names them all`() {
        let two = [
            JoinFinding(.clock, .conflict, "the clock is wrong", hint: "set it"),
            JoinFinding(.name, .conflict, "the name is taken", hint: "choose another"),
        ]
        let problem = two.problem
        #expect(problem?.detail.contains("2 things") == true && problem?.detail.contains("the name is taken") == true)
        #expect(problem?.hint == "set it\nchoose another")
        #expect([JoinFinding]().problem == nil)
        #expect([two[0]].problem?.detail == "the clock is wrong")
    }

    @Test func `all that is wrong with a machine is said, not the first of it`() throws {
        let other = NodeRow(
            id: "n1", name: "alpha", member: 1, address: "192.0.2.1", peerAddress: "192.0.2.1:4484", apiAddress: "",
            subnet: AddressRanges.standard.containers, cpuMillis: 1, memoryBytes: 1, version: "1")
        let wrong = PreflightQuestion(name: "alpha", version: "0.0.0", now: Clock.now().milliseconds - 600_000)
        let found = NodeBackend.objections(to: wrong, [other])
        #expect(found.map(\.check) == [.version, .clock, .name])
        #expect(found.allSatisfy { $0.hint != nil } && found[1].message.contains("behind"))
        let right = PreflightQuestion(name: "beta", version: BuildInfo.version, now: Clock.now().milliseconds)
        #expect(NodeBackend.objections(to: right, [other]).isEmpty)
        #expect(
            NodeBackend.objections(
                to: PreflightQuestion(name: "a b", version: BuildInfo.version, now: Clock.now().milliseconds), []
            ).map(\.check) == [.name])
    }

    @Test func `clocks and versions are compared without arithmetic that ends the daemon`() {
        #expect(LeaderDuties.clockFinding(Clock.now().milliseconds) == nil)
        for time in [Int64.min, 0, .max] { #expect(LeaderDuties.clockFinding(time)?.check == .clock) }
        #expect(LeaderDuties.versionFinding("0.0.0")?.check == .version)
    }
}
