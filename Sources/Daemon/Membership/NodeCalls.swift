// SPDX-License-Identifier: Apache-2.0
internal import FoundationEssentials
internal import Logging
internal import Model
internal import Raft
internal import Store
internal import Synchronization

/// Both ends of what nodes ask one another.
final class NodeCalls: Sendable {
    /// For a probe's packets to come back.
    static let probeLimit = Duration.milliseconds(1_500)
    static let knockLimit = Duration.seconds(2)
    private static let keyLimit = Duration.seconds(2)

    private let logs: LocalLogs
    private let networking: any Networking
    private let volumes: any VolumeDriver
    private let files: ClusterFiles
    private let log: Logger
    private let sessions = LogSessions()
    private let link = Mutex<(any PeerLink)?>(nil)

    init(
        logs: LocalLogs, networking: any Networking, volumes: any VolumeDriver, files: ClusterFiles, log: Logger
    ) {
        self.logs = logs
        self.networking = networking
        self.volumes = volumes
        self.files = files
        self.log = log
    }

    func connect(_ link: any PeerLink) { self.link.withLock { $0 = link } }
    /// The node stops: the link holds this in turn.
    func disconnect() { link.withLock { $0 = nil } }

    /// - Returns: an answer without a problem.
    /// - Throws: `PeerError` when it does not come, `Problem` of the other node.
    @discardableResult
    func ask(_ call: NodeCall, of node: NodeRow, deadline: Duration) async throws -> NodeAnswer {
        guard let link = link.withLock({ $0 }) else { throw PeerError(.unknownPeer, "this node knows no other") }
        let body = Array(try JSON.encode(call))
        let bytes = try await link.forward(PeerRequest.node(body).encoded(), to: node.member, deadline: deadline)
        let answer: NodeAnswer
        do { answer = try JSON.decode(NodeAnswer.self, from: Data(bytes)) } catch {
            throw Problem(
                .internal, "what `\(node.name)` answers cannot be read: \(error)",
                hint: "do all nodes run the same version?")
        }
        if let problem = answer.problem { throw problem }
        return answer
    }

    /// JSON of a `NodeAnswer`.
    func answer(_ body: [UInt8], from member: MemberID) async -> [UInt8] {
        var answer = NodeAnswer()
        do {
            answer = try await carryOut(try JSON.decode(NodeCall.self, from: Data(body)), for: member)
        } catch let problem as Problem {
            answer.problem = problem
        } catch {
            log.warning("a node's question has no answer", metadata: ["member": "\(member)", "error": "\(error)"])
            answer.problem = Problem(.internal, "\(error)")
        }
        return (try? JSON.encode(answer)).map { Array($0) } ?? []
    }

    /// Asks every node the same at the same time, this one among them.
    func askAll(
        _ call: NodeCall, deadline: Duration
    ) async throws -> [(node: NodeRow, answer: Result<NodeAnswer, any Error>)] {
        let nodes = try await logs.state.read { try $0.nodes() }
        let answers = await withTaskGroup(of: (Int, Result<NodeAnswer, any Error>).self) { group in
            for (place, node) in nodes.enumerated() {
                group.addTask { [self] in
                    do {
                        let answer =
                            node.id == logs.own
                            ? try await carryOut(call, for: node.member)
                            : try await ask(call, of: node, deadline: deadline)
                        return (place, .success(answer))
                    } catch { return (place, .failure(error)) }
                }
            }
            return await group.reduce(into: [:]) { $0[$1.0] = $1.1 }
        }
        return nodes.enumerated().compactMap { place, node in answers[place].map { (node, $0) } }
    }

    var holdsClusterKey: Bool { files.clusterKey() != nil }

    /// What this node holds; otherwise it asks one voter after the other, and keeps it. Who leads may be the one that lacks it.
    /// - Returns: nil when none of them has it for this node now.
    /// - Throws: when it cannot be kept.
    func clusterKey() async throws -> ClusterKey? {
        if let held = files.clusterKey() { return held }
        let (nodes, membership) = try await logs.state.read { (try $0.nodes(), try $0.meta().configuration.membership) }
        for node in nodes where node.id != logs.own && membership.isVoter(node.member) {
            let answer: NodeAnswer
            do { answer = try await ask(.clusterKey, of: node, deadline: Self.keyLimit) } catch {
                log.debug("no cluster key from a voter", metadata: ["node": "\(node.name)", "error": "\(error)"])
                continue
            }
            guard let key = answer.key.flatMap({ Base32.bytes($0) }).flatMap({ ClusterKey($0) }) else { continue }
            try files.write(key)
            log.info("this node holds the cluster's key now", metadata: ["from": "\(node.name)"])
            return key
        }
        return nil
    }

    private func knock(_ call: KnockCall) async throws -> KnockAnswer {
        guard let nonce = NodeBackend.bytes(hex: call.nonce), nonce.count == Greeter.nonceBytes,
            let own = try await logs.state.read({ [own = logs.own] in try $0.node(own) }).flatMap({
                IPv4Address($0.address)
            })
        else { throw Problem(.badRequest, "a knock needs a nonce of \(Greeter.nonceBytes) bytes") }
        async let closed = Greeter.closed(call.ports.prefix(4), of: call.address, nonce: nonce)
        var answer = KnockAnswer(closed: [:], heard: [])
        do {
            answer.heard =
                try await networking.knock([call.address], from: own, nonce: nonce, within: Self.knockLimit)[
                    call.address] ?? []
        } catch { answer.fault = reason(for: error).message }
        answer.closed = await closed
        return answer
    }

    /// A volume nobody has used yet has no directory; asking for it makes one, so that its path is true.
    func facts(of call: VolumesCall) async throws -> [VolumeFacts] {
        var facts: [VolumeFacts] = []
        for key in call.keys {
            facts.append(
                VolumeFacts(
                    key: key, path: try await volumes.ensure(key).path,
                    usedBytes: call.isMeasured ? try await volumes.usedBytes(key) : nil))
        }
        return facts
    }

    /// Of those volumes it asks for that are this node's.
    private func ownVolumes(_ call: VolumesCall) async throws -> [VolumeFacts] {
        let own = logs.own
        let ours = Set(
            try await logs.state.read { try $0.volumes() }.filter { $0.node == own && !$0.deleting }.map(\.key))
        return try await facts(of: VolumesCall(keys: call.keys.filter(ours.contains), isMeasured: call.isMeasured))
    }

    private func probe() async throws -> [PathDiagnosis] {
        let remotes = try await logs.state.read { try $0.nodes() }
            .filter { $0.id != logs.own && !$0.peerAddress.isEmpty }
            .compactMap { node in
                IPv4Address(node.address).map {
                    RemoteNode(id: node.id, address: $0, subnet: node.subnet, name: node.name)
                }
            }
        guard !remotes.isEmpty else { return [] }
        return try await networking.probe(remotes, within: Self.probeLimit)
    }

    private func carryOut(_ call: NodeCall, for member: MemberID) async throws -> NodeAnswer {
        switch call {
        case .openLogs(let call):
            let lines = try await logs.read(call.key, call.filter, resume: call.resume)
            return NodeAnswer(session: try await sessions.open(lines, for: member))
        case .nextLogs(let session):
            let page = try await sessions.page(session, for: member)
            return NodeAnswer(lines: page.lines, isEnd: page.isEnd)
        case .closeLogs(let session):
            await sessions.close(session, for: member)
            return NodeAnswer()
        case .addresses: return NodeAnswer(addresses: try await networking.addresses())
        case .knock(let call): return NodeAnswer(knock: try await knock(call))
        case .volumes(let call): return NodeAnswer(volumes: try await ownVolumes(call))
        case .probe: return NodeAnswer(paths: try await probe())
        case .clusterKey:
            let membership = try await logs.state.read { try $0.meta() }.configuration.membership
            guard membership.isVoter(member), let key = files.clusterKey() else {
                throw Problem(.forbidden, "member \(member) does not vote, or this node has no key")
            }
            return NodeAnswer(key: Base32.text(key.bytes))
        }
    }
}
