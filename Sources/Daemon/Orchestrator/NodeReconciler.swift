// SPDX-License-Identifier: Apache-2.0
public import Model
public import Store

/// Compares what this node should run with what it does run, and asks for the next action of each task.
///
/// Pure: desired rows, observations and time go in, actions and reports come out. It needs no leader: restarts go on
/// while the cluster cannot agree on anything. Memory is rebuilt from an inventory after a start of the daemon, so
/// nothing in here has to survive.
public struct NodeReconciler: Sendable {
    struct Local: Sendable {
        enum Phase: Hashable, Sendable {
            /// The next attempt starts at this time.
            case waiting(until: Timestamp)
            case starting
            case up(StartedContainer, since: UInt64)
            /// Out of service from this index on; stops once no rule of any node names it.
            case draining(StartedContainer, since: UInt64)
            case stopping
            /// Then the task has ended as `final` says.
            case cleaning(final: TaskState, underWay: Bool)
            case ended
        }

        var row: TaskRow
        var phase: Phase
        /// Of the current container, or the next one while waiting.
        var attempt: Int
        /// In a row, without a long run in between.
        var failures = 0
        var status: TaskStatus
        /// Containers of earlier attempts still on the node.
        var leftovers: [ContainerID] = []
        /// An exit seen before the start was reported.
        var earlyExit: ExitStatus?
        var cancelling = false
        /// When cleaning is tried again, or draining ends at the latest.
        var retryAt: Timestamp?

        var container: ContainerID { ContainerID(task: row.id, attempt: attempt) }
    }

    private enum VolumeDeletion: Hashable, Sendable {
        case due(Timestamp)
        case underWay
        case done
    }

    public private(set) var isAdopted = false
    var locals: [TaskID: Local] = [:]
    /// Tasks whose row has ended: their logs are kept.
    private var endedRows: Set<TaskID> = []
    private var deletingVolumes: [ObjectKey: VolumeDeletion] = [:]
    /// Counts changes, so that an inventory can be told apart from what happened after it was asked for.
    private var clock: UInt64 = 0
    private var inventoryPending = false
    private var inventoryDue: Timestamp?
    private var programmedIndex: UInt64 = 0
    private var releasedIndex: UInt64 = 0

    /// How often the node is compared with memory even when no event was seen.
    public static let inventoryIntervalMilliseconds: Int64 = 30_000
    /// A task whose rules cannot be taken away is stopped all the same after so long.
    public static let drainMillisecondsMax: Int64 = 30_000
    /// Characters kept of a reason an effect gave: it goes through the log.
    static let reasonCharactersMax = 1000

    public init() {}

    public struct Output: Sendable {
        public var actions: [Action] = []
        /// Tasks wait for `released` at this index.
        public var awaited: UInt64?
        public var reports: [TaskReport] = []
        public var removedVolumes: [ObjectKey] = []
        public var wakeAt: Timestamp?
    }

    // MARK: - Desired

    /// Rows of this node that were touched; nil for rows that are gone.
    public mutating func update(_ rows: [TaskID: TaskRow?], now: Timestamp) -> [Action] {
        var actions: [Action] = []
        for (id, row) in rows.sorted(by: { $0.key < $1.key }) {
            guard let row else {
                if let local = locals.removeValue(forKey: id), local.phase != .ended {
                    actions.append(.clean(id, local.leftovers + [local.container]))
                }
                endedRows.remove(id)
                actions.append(.forgetLogs(id))
                continue
            }
            if row.status.state.isTerminal {
                endedRows.insert(id)
                locals[id] = nil
            } else if var local = locals[id] {
                if row.goal == .stop, local.row.goal == .run {
                    local.status.reason = row.status.reason
                    local.status.ready = false
                }
                local.row = row
                locals[id] = local
            } else if isAdopted {
                locals[id] = Local(row: row, phase: .waiting(until: now), attempt: 0, status: row.status)
            } else {
                // Before the first inventory nothing is known of its containers.
                locals[id] = Local(row: row, phase: .waiting(until: .distantFuture), attempt: 0, status: row.status)
            }
        }
        return actions
    }

    public mutating func updateVolumes(deleting: [ObjectKey], gone: [ObjectKey]) {
        for key in deleting where deletingVolumes[key] == nil {
            deletingVolumes[key] = .due(Timestamp(milliseconds: 0))
        }
        for key in gone { deletingVolumes[key] = nil }
    }

    /// Every rule of this node now follows the state at `index`.
    public mutating func programmed(_ index: UInt64) { programmedIndex = max(programmedIndex, index) }
    public func hasProgrammed(_ index: UInt64) -> Bool { programmedIndex >= index }

    /// So do the rules of every other node that answers.
    public mutating func released(_ index: UInt64) { releasedIndex = max(releasedIndex, index) }

    // MARK: - Observed

    public mutating func observe(_ observation: Observation, now: Timestamp) -> [Action] {
        clock += 1
        switch observation {
        case .inventory(let inventory): return takeInventory(inventory, now: now)
        case .resync: inventoryDue = now
        case .starting(let task, let attempt):
            edit(task, attempt) { local, _ in
                local.status.state = max(local.status.state, .starting)
            }
        case .started(let task, let attempt, let started):
            edit(task, attempt) { local, clock in
                guard local.phase == .starting else { return }
                local.phase = .up(started, since: clock)
                local.cancelling = false
                local.leftovers = []
                local.status.state = max(local.status.state, .running)
                local.status.ready = local.row.goal == .run
                local.status.container = local.container
                local.status.pid = started.pid
                local.status.startedAt = started.startedAt
                if local.row.goal == .run { local.status.reason = nil }
                if let exit = local.earlyExit {
                    local.earlyExit = nil
                    Self.ended(&local, started, exit, now: now)
                }
            }
        case .startFailed(let task, let attempt, let given):
            let reason = Self.shortened(given)
            edit(task, attempt) { local, _ in
                guard local.phase == .starting else { return }
                local.cancelling = false
                local.leftovers = []
                local.failures += 1
                if local.row.goal == .stop {
                    local.phase = .waiting(until: now)
                } else if reason.code.isFinal, local.status.state < .running {
                    local.status.reason = reason
                    Self.clean(&local, final: .failed)
                } else {
                    let delay = max(500, Backoff.milliseconds(afterFailures: local.failures))
                    local.phase = .waiting(until: now + delay)
                    local.status.ready = false
                    local.status.reason = reason
                }
            }
        case .exited(let container, let exit):
            guard let (task, attempt) = container.parts else { return [] }
            edit(task, attempt) { local, _ in
                switch local.phase {
                case .starting: local.earlyExit = exit
                case .up(let started, _), .draining(let started, _): Self.ended(&local, started, exit, now: now)
                case .stopping: local.status.exitCode = exit.code
                default: break
                }
            }
        case .stopped(let task, let container):
            if let attempt = container.parts?.attempt {
                edit(task, attempt) { local, _ in
                    guard local.phase == .stopping else { return }
                    Self.clean(&local, final: .stopped)
                }
            }
        case .stopFailed(let task, let container, _):
            if let attempt = container.parts?.attempt {
                edit(task, attempt) { local, _ in
                    guard local.phase == .stopping else { return }
                    // Cleaning kills as well: what cannot be stopped in peace is removed by force.
                    Self.clean(&local, final: .stopped)
                }
            }
        case .cleaned(let task):
            guard var local = locals[task], case .cleaning(let final, _) = local.phase else { return [] }
            local.phase = .ended
            local.status.state = final
            locals[task] = local
        case .cleanFailed(let task, let reason):
            guard var local = locals[task], case .cleaning(let final, _) = local.phase else { return [] }
            local.failures += 1
            local.phase = .cleaning(final: final, underWay: false)
            local.retryAt = now + max(1000, Backoff.milliseconds(afterFailures: local.failures))
            if local.row.goal == .stop {
                local.status.reason = Self.shortened(
                    Reason(reason.code, "cannot be removed yet: \(reason.message)", hint: reason.hint))
            }
            locals[task] = local
        case .volumeDeleted(let key): deletingVolumes[key] = .done
        case .volumeDeleteFailed(let key, _):
            if deletingVolumes[key] != nil { deletingVolumes[key] = .due(now + 5000) }
        }
        return []
    }

    private mutating func edit(_ task: TaskID, _ attempt: Int, _ body: (inout Local, UInt64) -> Void) {
        guard var local = locals[task], local.attempt == attempt else { return }
        body(&local, clock)
        locals[task] = local
    }

    /// A container ended by itself.
    private static func ended(_ local: inout Local, _ started: StartedContainer, _ exit: ExitStatus, now: Timestamp) {
        local.status.ready = false
        local.status.exitCode = exit.code
        local.status.pid = nil
        if local.row.goal == .stop { return clean(&local, final: .stopped) }
        let ran = exit.at - started.startedAt
        guard local.row.spec.restart.restarts(afterExitCode: exit.outOfMemory ? 137 : exit.code) else {
            local.status.reason = exit.reason
            return clean(&local, final: exit.code == 0 ? .stopped : .failed)
        }
        local.failures = ran >= Backoff.forgivenAfterMilliseconds ? 1 : local.failures + 1
        let delay = Backoff.milliseconds(afterFailures: local.failures)
        local.leftovers.append(local.container)
        local.attempt += 1
        local.status.restarts += 1
        local.phase = .waiting(until: now + delay)
        var reason = exit.reason
        reason.message +=
            delay == 0 ? "; restarted at once" : "; restart \(local.status.restarts) in \(seconds(delay)) s"
        local.status.reason = reason
    }

    private static func shortened(_ reason: Reason) -> Reason {
        func cut(_ text: String) -> String {
            text.count > reasonCharactersMax ? text.prefix(reasonCharactersMax) + "…" : text
        }
        return Reason(reason.code, cut(reason.message), hint: reason.hint.map(cut))
    }

    private static func seconds(_ milliseconds: Int64) -> String {
        milliseconds % 1000 == 0 ? "\(milliseconds / 1000)" : "\(milliseconds / 1000).\(milliseconds % 1000 / 100)"
    }

    /// An ended task keeps nothing on its node but its logs; only then it counts as ended.
    private static func clean(_ local: inout Local, final: TaskState) {
        local.phase = .cleaning(final: final, underWay: false)
        local.retryAt = nil
        local.status.state = max(local.status.state, .stopping)
        local.status.ready = false
        local.status.pid = nil
    }

    // MARK: - Inventory

    private mutating func takeInventory(_ inventory: Inventory, now: Timestamp) -> [Action] {
        inventoryPending = false
        inventoryDue = now + Self.inventoryIntervalMilliseconds
        let byTask = Dictionary(grouping: inventory.containers, by: \.task)
        var actions: [Action] = []
        if !isAdopted {
            isAdopted = true
            for id in locals.keys.sorted() { actions += adopt(id, byTask[id] ?? [], now: now) }
        } else {
            for id in locals.keys.sorted() {
                guard var local = locals[id], case .up(let started, let since) = local.phase,
                    since <= inventory.token
                else { continue }
                let found = byTask[id]?.first { $0.id == local.container }
                switch found?.state {
                case .running: continue
                case .exited(let exit): Self.ended(&local, started, exit, now: now)
                case .created, nil:
                    Self.ended(&local, started, ExitStatus(code: 255, outOfMemory: false, at: now), now: now)
                    local.status.reason = Reason(.killed, "its container vanished from the runtime")
                }
                locals[id] = local
            }
        }
        // Nobody desires these.
        let strays = Set(inventory.attached).union(byTask.keys).subtracting(locals.keys)
        for id in strays.sorted() { actions.append(.clean(id, (byTask[id] ?? []).map(\.id).sorted())) }
        for id in inventory.logged where locals[id] == nil && !endedRows.contains(id) {
            actions.append(.forgetLogs(id))
        }
        return actions
    }

    /// The first look after a start of the daemon: containers go on as they were.
    private mutating func adopt(_ id: TaskID, _ containers: [ObservedContainer], now: Timestamp) -> [Action] {
        guard var local = locals[id] else { return [] }
        defer { locals[id] = local }
        let sorted = containers.sorted { $0.attempt < $1.attempt }
        local.status = local.row.status
        let recorded = local.status.container?.parts?.attempt
        if local.row.goal == .run, local.status.state >= .stopping {
            // It had ended by itself and only its removal was under way: never start it again.
            local.attempt = sorted.last?.attempt ?? recorded ?? 0
            local.leftovers = sorted.dropLast().map(\.id)
            Self.clean(&local, final: local.status.exitCode == 0 ? .stopped : .failed)
            return []
        }
        guard let newest = sorted.last else {
            // None: never started, or lost with the machine's containers.
            local.attempt = recorded.map { $0 + 1 } ?? 0
            if let recorded, local.row.goal == .run, !local.row.spec.restart.restarts(afterExitCode: 255) {
                local.attempt = recorded
                local.status.reason = Reason(.killed, "its container vanished from the runtime")
                Self.clean(&local, final: .failed)
            } else {
                local.status.restarts = local.attempt
                local.status.ready = false
                local.status.pid = nil
                local.phase = .waiting(until: now)
            }
            return []
        }
        local.attempt = newest.attempt
        local.status.restarts = newest.attempt
        local.leftovers = sorted.dropLast().map(\.id)
        switch newest.state {
        case .running(let pid):
            let started = StartedContainer(pid: pid, startedAt: newest.startedAt ?? local.status.startedAt ?? now)
            local.phase = .up(started, since: clock)
            local.status.state = max(local.status.state, .running)
            local.status.ready = local.row.goal == .run
            local.status.container = newest.id
            local.status.pid = pid
            local.status.startedAt = started.startedAt
            if local.row.goal == .run { local.status.reason = nil }
            let old = local.leftovers
            local.leftovers = []
            return old.isEmpty ? [] : [.discard(old)]
        case .exited(let exit):
            let started = StartedContainer(pid: 0, startedAt: newest.startedAt ?? local.status.startedAt ?? exit.at)
            local.status.state = max(local.status.state, .running)
            Self.ended(&local, started, exit, now: now)
        case .created:
            local.phase = .waiting(until: now)
        }
        return []
    }

    // MARK: - Next

    /// What to do now. Call after every change; actions asked for are remembered as under way.
    public mutating func next(now: Timestamp) -> Output {
        var output = Output()
        func wake(_ at: Timestamp) { output.wakeAt = min(output.wakeAt ?? at, at) }

        if !inventoryPending, inventoryDue.map({ now >= $0 }) ?? true {
            inventoryPending = true
            output.actions.append(.takeInventory(token: clock))
        } else if let due = inventoryDue, !inventoryPending {
            wake(due)
        }
        guard isAdopted else { return output }

        for id in locals.keys.sorted() {
            guard var local = locals[id] else { continue }
            advance(&local, now: now, &output)
            if case .waiting(let until) = local.phase, until > now { wake(until) }
            if let retry = local.retryAt { wake(retry) }
            // What the log does not know yet. Sent again until it does.
            if local.status != local.row.status { output.reports.append(TaskReport(task: id, status: local.status)) }
            locals[id] = local
        }
        for (key, state) in deletingVolumes.sorted(by: { $0.key < $1.key }) {
            switch state {
            case .due(let at) where at <= now:
                output.actions.append(.deleteVolume(key))
                deletingVolumes[key] = .underWay
            case .due(let at): wake(at)
            case .underWay: break
            case .done: output.removedVolumes.append(key)
            }
        }
        return output
    }

    private func advance(_ local: inout Local, now: Timestamp, _ output: inout Output) {
        let stops = local.row.goal == .stop
        switch local.phase {
        case .waiting(let until):
            if stops {
                Self.clean(&local, final: .stopped)
                advance(&local, now: now, &output)
            } else if now >= until {
                local.phase = .starting
                local.earlyExit = nil
                local.status.state = max(local.status.state, .preparing)
                output.actions.append(
                    .start(
                        StartRequest(
                            task: local.row.id, attempt: local.attempt, app: local.row.app, service: local.row.spec,
                            address: local.row.address, discard: local.leftovers)))
            }
        case .starting:
            if stops, !local.cancelling {
                local.cancelling = true
                output.actions.append(.cancelStart(local.row.id))
            }
        case .up(let started, _):
            if stops {
                local.status.ready = false
                local.status.state = max(local.status.state, .stopping)
                local.phase = .draining(started, since: local.row.version)
                local.retryAt = now + Self.drainMillisecondsMax
                advance(&local, now: now, &output)
            }
        case .draining(_, let since):
            if min(programmedIndex, releasedIndex) < since, let end = local.retryAt, now < end {
                // The others are asked once the own rules are right: before, it cannot stop anyway.
                if programmedIndex >= since { output.awaited = max(output.awaited ?? 0, since) }
            } else {
                local.phase = .stopping
                local.retryAt = nil
                output.actions.append(
                    .stop(
                        local.row.id, local.container, signal: local.row.spec.stopSignal,
                        timeoutMilliseconds: local.row.spec.stopTimeoutMilliseconds))
            }
        case .stopping, .ended: break
        case .cleaning(let final, let underWay):
            // How it ended is recorded before the evidence is removed: a crash between the two must not start it again.
            if local.row.goal == .run, local.row.status.state < .stopping { return }
            if !underWay, local.retryAt.map({ now >= $0 }) ?? true {
                local.retryAt = nil
                local.phase = .cleaning(final: final, underWay: true)
                output.actions.append(.clean(local.row.id, local.leftovers + [local.container]))
            }
        }
    }
}

extension Timestamp {
    static let distantFuture = Timestamp(milliseconds: Int64.max / 4)
}
