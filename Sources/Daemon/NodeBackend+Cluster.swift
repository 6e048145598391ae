// SPDX-License-Identifier: Apache-2.0
internal import FoundationEssentials
internal import Model
internal import Orchestrator
internal import Raft
internal import Store

/// This node and the others: how they stand, who leads, snapshots of the whole state.
extension NodeBackend {
    func nodes() async throws -> ItemList<NodeView> {
        let info = await effects.runtime.info()
        let own = identity.id
        let leader = leaderName(core.status)
        return try await list { state in
            let tasks = try state.tasks().filter { !$0.status.state.isTerminal }
            let index = try state.meta().appliedIndex
            return try state.nodes().map { node in
                let mine = tasks.filter { $0.node == node.id }
                return NodeView(
                    id: node.id, name: node.name, address: node.address, state: node.state, role: node.role.rawValue,
                    leader: node.name == leader, subnet: node.subnet, labels: node.labels,
                    capacity: NodeResources(
                        cpuMillis: node.cpuMillis, memoryBytes: node.memoryBytes,
                        tasks: AddressPool.containerOffsets(of: node.subnet).count),
                    allocated: NodeResources(
                        cpuMillis: mine.map { $0.spec.resources.reservedCpuMillis ?? 0 }.reduce(0, +),
                        memoryBytes: mine.map { $0.spec.resources.reservedMemoryBytes ?? 0 }.reduce(0, +),
                        tasks: mine.count),
                    appliedIndex: index, version: node.version, runtime: node.id == own ? info : nil,
                    taints: node.taints.isEmpty ? nil : node.taints)
            }
        }
    }

    func node(_ nameOrID: String) async throws -> NodeView {
        guard let node = try await nodes().items.first(where: { $0.name == nameOrID || $0.id.raw == nameOrID }) else {
            throw Problem(.notFound, "no node `\(nameOrID)`", hint: "`hivemind node ls` shows what there is")
        }
        return node
    }

    func status() async throws -> StatusView {
        let info = await effects.runtime.info()
        let status = core.status
        let (apps, tasks, index) = try await state.read { state in
            (try state.apps().count, try state.tasks().filter { $0.status.ready }.count, try state.meta().appliedIndex)
        }
        var conditions = info.conditions
        if !info.isReady, !conditions.contains(where: { $0.hasSuffix("does not answer") }) {
            conditions.insert("the container runtime at \(info.address) does not answer", at: 0)
        }
        conditions += publisher.refusedPorts.map {
            "port \($0.hostPort)/\($0.protocol.rawValue) could not be published: another program of this node uses it"
        }
        if let condition = status.condition { conditions.insert(condition, at: 0) }
        if status.consensus.leader == nil {
            conditions.insert("no leader: changes are refused until a majority of the voters answers", at: 0)
        }
        if membership.isRemoved() {
            conditions.removeAll { $0.hasPrefix("no leader") }
            conditions.insert(
                "the cluster removed this node for good: `hivemind cluster leave --yes` makes it a new one that may join "
                    + "again", at: 0)
        }
        if let condition = core.keeper.condition { conditions.append(condition) }
        if let halted = status.state.halted { conditions.insert("this node applies no more changes: \(halted)", at: 0) }
        var told: Set<String> = []
        conditions.removeAll { !told.insert($0).inserted }
        return StatusView(
            node: identity.name, role: role(of: core.member, status), term: status.term, appliedIndex: index,
            commitIndex: status.commitIndex, leader: leaderName(status), version: BuildInfo.version, runtime: info,
            apps: apps, tasksRunning: tasks,
            uptimeSeconds: Int((ContinuousClock.now - startedAt).components.seconds),
            log: LogStatusView(
                firstIndex: status.consensus.baseIndex + 1, lastIndex: status.consensus.lastIndex,
                bytes: await logBytes()),
            fsync: core.fsync.view(now: Clock.monotonic()),
            snapshot: core.snapshots.store.newest.map { SnapshotView($0, .log, in: core.snapshots.store) },
            conditions: conditions)
    }

    /// Of the log's files. A few calls of the file system, on a thread that may wait for them.
    private func logBytes() async -> Int64 {
        let path = core.logDirectory
        return await withCheckedContinuation { continuation in
            Thread.spawn { continuation.resume(returning: NodeDirectory.bytes(at: path)) }
        }
    }

    func cluster() async throws -> ClusterView {
        let status = core.status
        let (nodes, meta) = try await state.read { (try $0.nodes(), try $0.meta()) }
        // Only the leader knows how far the others are; without one their places stay empty.
        let progress = await core.memberProgress()
        let configuration = status.consensus.configuration?.membership ?? Membership(voters: [core.member])
        let last = progress?.map(\.match).max() ?? 0
        let links = members.status
        let observers = nodes.filter {
            !configuration.contains($0.member) && !configuration.removed.contains($0.member)
        }.map(\.member)
        let views = (configuration.members + observers).map { member -> MemberView in
            let known = progress?.first { $0.id == member }
            let name = self.name(of: member)
            let node = nodes.first { $0.name == name }
            return MemberView(
                id: node?.id ?? NodeID("\(member)"), name: name,
                address: members.peer(member).map { "\($0.address)" } ?? node?.address ?? "",
                role: role(of: member, status), matchIndex: known?.match,
                lastContactMs: known.map { $0.silentTicks * Int(ConsensusOwner.tickMilliseconds) },
                lag: known.map { last - $0.match }, refusal: links.first { $0.id == member }?.refusal)
        }
        return ClusterView(
            id: meta.clusterID, leader: leaderName(status), term: status.term, commitIndex: status.commitIndex,
            members: views.sorted { $0.name < $1.name }, nodes: nodes.count,
            downAfter: DurationText.text(milliseconds: meta.downAfterMilliseconds))
    }

    func patchCluster(_ patch: ClusterPatch) async throws -> ClusterView {
        guard let text = patch.downAfter else {
            throw Problem(.badRequest, "nothing is to be changed", hint: "give `down_after`, for example 10s")
        }
        let milliseconds: Int64
        do throws(DurationText.Fault) { milliseconds = try DurationText.milliseconds(text) } catch {
            throw Problem(
                .badRequest, "`down_after` \(Validation.shown(text)) \(error.why)", hint: "for example 10s or 1m")
        }
        let applied = try await core.propose(
            .setCluster(SetCluster(downAfterMilliseconds: milliseconds)), deadline: Self.writeDeadline)
        if case .refused(let problem) = applied.outcome { throw problem }
        return try await cluster()
    }

    private func name(of member: MemberID) -> String {
        members.peer(member)?.name ?? (member == core.member ? identity.name : "\(member)")
    }

    private func leaderName(_ status: CoreOwner.Status) -> String? { status.consensus.leader.map { name(of: $0) } }

    private func role(of member: MemberID, _ status: CoreOwner.Status) -> String {
        guard let membership = status.consensus.configuration?.membership else { return "observer" }
        return membership.isVoter(member) ? "voter" : membership.contains(member) ? "standby" : "observer"
    }

    var leaderlessMilliseconds: Int64? { core.consensus.leaderlessMilliseconds }

    var appliedIndex: UInt64 { core.proposals.appliedIndex }

    func readBarrier(_ consistency: ReadConsistency) async throws -> UInt64 {
        switch consistency {
        case .local: return 0
        case .leader where core.status.consensus.isReady:
            // What this leader knows to be committed, applied here.
            let index = core.status.commitIndex
            let end = Clock.monotonic() + CoreOwner.noLeaderMilliseconds
            guard await core.proposals.applied(through: index, deadline: end) else {
                throw Problem(.timeout, "this node has not applied entry \(index) yet", hint: "try again")
            }
            return index
        case .leader, .linearizable: return try await core.readBarrier()
        }
    }

    func transferLeader(to member: String?) async throws -> LeaderView {
        let before = core.status
        let membership = before.consensus.configuration?.membership ?? Membership(voters: [core.member])
        var target: MemberID?
        if let member {
            target = members.peer(named: member)?.id ?? (member == identity.name ? core.member : nil)
            guard let target, membership.contains(target) else {
                throw Problem(.notFound, "no member `\(member)`", hint: "`hivemind cluster status` shows them")
            }
            guard membership.isVoter(target) else {
                throw Problem(.conflict, "member `\(member)` does not vote", hint: "only a voter can lead")
            }
        }
        let previous = leaderName(before) ?? ""
        switch try await core.transferLeadership(to: target) {
        case .transferred(let leader):
            return LeaderView(leader: name(of: leader), previous: previous, term: core.status.term)
        case .noTarget:
            throw Problem(
                .conflict, "there is no other voter that could lead now", hint: "`hivemind cluster status` shows them")
        case .timedOut(let member):
            throw Problem(
                .timeout, "`\(name(of: member))` did not take over in time; `\(previous)` leads on",
                hint: "see whether it is up and reachable")
        case .notLeader: throw CoreOwner.noLeader
        }
    }

    func snapshots() async throws -> ItemList<SnapshotView> {
        let all: [(SnapshotView.Kind, SnapshotStore)] = [
            (.log, core.snapshots.store), (.scheduled, core.snapshots.scheduled), (.manual, core.snapshots.manual),
        ]
        let views = all.flatMap { kind, store in store.snapshots.map { SnapshotView($0, kind, in: store) } }
        return ItemList(
            items: views.sorted { ($0.index, $0.createdAt) > ($1.index, $1.createdAt) },
            index: core.status.appliedIndex)
    }

    func backup() async throws -> BackupStream {
        let worker = core.snapshots
        let reader = try await worker.run { try worker.fresh() }
        return BackupStream(reader: reader, worker: worker, node: identity.name)
    }

    func takeSnapshot() async throws -> SnapshotView {
        let worker = core.snapshots
        return try await worker.run {
            SnapshotView(try worker.takeManual(), .manual, in: worker.manual)
        }
    }
}
