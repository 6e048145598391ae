// SPDX-License-Identifier: Apache-2.0
internal import Model

/// What a machine shows and asks before it applies.
struct PreflightQuestion: Codable, Sendable, CustomStringConvertible, CustomReflectable {
    var tokenId = ""
    /// Base32. Goes to nodes of the cluster only, over a connection whose authority the token names.
    var secret = ""
    var name: String
    var version: String
    /// Of its clock, in milliseconds since 1970.
    var now: Int64
    /// Nil asks only what needs no ways between the machines.
    var knock: KnockCall?

    var description: String { "question of `\(name)` with join token \(tokenId)" }
    var customMirror: Mirror { Mirror(self, children: ["name": name, "tokenId": tokenId]) }
}

/// What the cluster says to it.
struct PreflightAnswer: Codable, Sendable {
    struct Node: Codable, Hashable, Sendable {
        var name: String
        var address: String
        var peerAddress: String
        var apiAddress: String
    }

    var findings: [JoinFinding]
    var ranges: AddressRanges
    var nodes: [Node]
    /// By name of the node; of those that could be asked.
    var knocks: [String: KnockAnswer]
}

/// Tries out whether a machine could join, from its side. Changes nothing.
struct Preflight: Sendable {
    static let knockLimit = Duration.seconds(3)

    let joining: Joining
    let networking: any Networking
    let name: String
    /// Nil when the address is not one of this machine's: ways cannot be tried then.
    let address: IPv4Address?
    let peerPort: Int
    let apiPort: Int

    private var question: PreflightQuestion {
        PreflightQuestion(name: name, version: BuildInfo.version, now: Clock.now().milliseconds)
    }

    /// - Returns: everything that is in the way, and the nodes the ways to which were tried.
    func run() async -> (findings: [JoinFinding], nodes: [String]) {
        var findings: [JoinFinding] = []
        let answer: PreflightAnswer
        do { answer = try await joining.check(question) } catch {
            return ([Self.finding(of: error)], [])
        }
        findings += answer.findings
        do {
            for reason in try await networking.conflicts(answer.ranges) {
                findings.append(
                    JoinFinding(
                        .ranges, .conflict, "of the cluster's addresses, \(reason.message)",
                        hint: "take that route away from this machine; the ranges of a cluster cannot change"))
            }
        } catch {
            findings.append(Self.finding(of: error))
        }
        guard let address else { return (findings, []) }
        var ways = await tryWays(address, answer)
        // Busy machines and networks that have just come up lose something once; a firewall does so again.
        if !ways.isEmpty { ways = await tryWays(address, answer) }
        findings += ways
        return (findings, answer.nodes.map(\.name).sorted())
    }

    private static func finding(of error: any Error) -> JoinFinding {
        guard let problem = error as? Problem else {
            return JoinFinding(.refused, .internal, "\(error)", hint: nil)
        }
        let check: JoinFinding.Check =
            switch problem.code {
            case .unauthenticated: .token
            case .noLeader: .reach
            default: .refused
            }
        return JoinFinding(check, problem.code, problem.detail, hint: problem.hint)
    }

    // MARK: - Ways

    private func tryWays(_ address: IPv4Address, _ known: PreflightAnswer) async -> [JoinFinding] {
        var generator = SystemRandomNumberGenerator()
        let nonce = (0..<Greeter.nonceBytes).map { _ in UInt8.random(in: 0...255, using: &generator) }
        var findings: [JoinFinding] = []
        var greeters: [Greeter] = []
        for port in [peerPort, apiPort] {
            do { greeters.append(try await Greeter.listen(address, port: port, nonce: nonce)) } catch {
                findings.append(
                    JoinFinding(
                        .ports, .conflict,
                        "TCP port \(port) of this machine cannot be listened on: \(Greeter.why(error))",
                        hint: "see who has it (ss -ltnp sport = \(port)), or choose another port"))
            }
        }
        var question = question
        question.knock = KnockCall(
            address: address, ports: greeters.map(\.port), nonce: NodeBackend.hex(nonce))
        let asked = question
        async let theirs = self.answer(to: asked)
        async let closed = closedPorts(known.nodes)
        let addresses = known.nodes.compactMap { IPv4Address($0.address) }
        let heard: [IPv4Address: Knocks]
        do {
            heard = try await networking.knock(addresses, from: address, nonce: nonce, within: Self.knockLimit)
        } catch {
            let reason = reason(for: error)
            findings.append(JoinFinding(.address, .conflict, reason.message, hint: reason.hint))
            heard = Dictionary(addresses.map { ($0, .all) }, uniquingKeysWith: { first, _ in first })
        }
        let answer = await theirs
        for (port, nodes) in await closed.sorted(by: { $0.key < $1.key }) {
            findings.append(
                JoinFinding(
                    .tcpOut, .conflict, "this machine does not reach TCP port \(port) of \(Self.list(nodes))",
                    hint: "let it through in the firewalls between the two, and see that the daemon there runs"))
        }
        for greeter in greeters { await greeter.close() }
        switch answer {
        case .failure(let finding): return findings + [finding]
        case .success(let answer): return findings + Self.judge(answer, heard, ports: greeters.map(\.port))
        }
    }

    private func answer(to question: PreflightQuestion) async -> Answer {
        do { return .success(try await joining.check(question)) } catch { return .failure(Self.finding(of: error)) }
    }

    private enum Answer: Sendable { case success(PreflightAnswer), failure(JoinFinding) }

    /// Ports of nodes that take no connection, with the nodes.
    private func closedPorts(_ nodes: [PreflightAnswer.Node]) async -> [Int: [String]] {
        await withTaskGroup(of: (Int, String)?.self) { group in
            for node in nodes {
                for place in [node.peerAddress, node.apiAddress].compactMap({ PeerAddress($0) }) {
                    group.addTask {
                        await Greeter.fault(host: place.host, port: place.port, nonce: nil) == nil
                            ? nil : (place.port, node.name)
                    }
                }
            }
            var closed: [Int: [String]] = [:]
            for await found in group { if let (port, name) = found { closed[port, default: []].append(name) } }
            return closed
        }
    }

    private static func list(_ names: [String]) -> String {
        names.sorted().map { "`\($0)`" }.joined(separator: ", ")
    }

    /// What both ends saw, put together. Pure.
    static func judge(_ answer: PreflightAnswer, _ heard: [IPv4Address: Knocks], ports: [Int]) -> [JoinFinding] {
        var findings: [JoinFinding] = []
        for port in ports {
            let nodes = answer.knocks.filter { $0.value.closed[port] != nil }
            guard let why = nodes.min(by: { $0.key < $1.key })?.value.closed[port] else { continue }
            findings.append(
                JoinFinding(
                    .tcpIn, .conflict,
                    "TCP port \(port) of this machine is not reached by \(list(Array(nodes.keys))): \(why)",
                    hint: "let it through in the firewalls between the two"))
        }
        let port = OverlayEnd.standardPort
        var (out, back, outWhole, backWhole): ([String], [String], [String], [String]) = ([], [], [], [])
        for node in answer.nodes {
            guard let there = answer.knocks[node.name], there.fault == nil else { continue }
            let here = IPv4Address(node.address).flatMap { heard[$0] } ?? []
            if !there.heard.contains(.small) { out.append(node.name) }
            if !here.contains(.small) { back.append(node.name) }
            if there.heard == [.small] { outWhole.append(node.name) }
            if here == [.small] { backWhole.append(node.name) }
        }
        if !out.isEmpty {
            findings.append(
                JoinFinding(
                    .udpOut, .conflict, "datagrams of this machine do not reach UDP port \(port) of \(list(out))",
                    hint: "allow UDP port \(port) in both directions in the firewalls between the two"))
        }
        if !back.isEmpty {
            findings.append(
                JoinFinding(
                    .udpIn, .conflict, "datagrams of \(list(back)) do not reach UDP port \(port) of this machine",
                    hint: "allow UDP port \(port) in both directions in the firewalls between the two"))
        }
        if !outWhole.isEmpty || !backWhole.isEmpty {
            findings.append(
                JoinFinding(
                    .mtu, .conflict,
                    "small datagrams arrive, those of the links' whole MTU do not, between this machine and "
                        + list(Array(Set(outWhole + backWhole))),
                    hint:
                        "give all links the same MTU, one that what is between them lets through: ip link set DEV mtu N"
                ))
        }
        return findings
    }
}

extension [JoinFinding] {
    /// One refusal for all of them.
    var problem: Problem? {
        guard let first else { return nil }
        if count == 1 { return Problem(first.code, first.message, hint: first.hint) }
        var hints: [String] = []
        for hint in compactMap(\.hint) where !hints.contains(hint) { hints.append(hint) }
        return Problem(
            first.code,
            "\(count) things keep this machine from joining:\n" + map { "- \($0.message)" }.joined(separator: "\n"),
            hint: hints.joined(separator: "\n"))
    }
}
