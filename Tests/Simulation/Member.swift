// SPDX-License-Identifier: Apache-2.0

internal import Raft
internal import Store
internal import TestSupport

/// What a log holds by the book: the term of each entry from index 1 on, and the promises.
struct LogShadow {
    var terms: [UInt64] = []
    var hardState = HardState()

    var lastIndex: UInt64 { UInt64(terms.count) }

    func term(at index: UInt64) -> UInt64? {
        index == 0 ? 0 : index <= lastIndex ? terms[Int(index) - 1] : nil
    }

    mutating func add(_ write: Write) {
        if let state = write.hardState { hardState = state }
        if let from = write.truncateFrom { terms.removeSubrange(Int(from) - 1..<terms.count) }
        terms += write.entries.map(\.term)
    }
}

/// One whole member: core, log file on a simulated disk, state machine, and the shell between them.
final class Member {
    enum Fate {
        case present
        /// Its disk is lost or damaged: it never speaks again under this id.
        case destroyed
        /// Removed from the membership, and switched off.
        case retired
    }

    /// What waits for the log's thread, in order.
    enum Job {
        case write(Write)
        case load(Load)
        case compact(UInt64)
        case install(Install)
    }

    struct Proposed {
        var request: Request
        var term: UInt64
    }

    let id: MemberID
    let slot: Int
    let options: Options
    var fate = Fate.present

    // The machine.
    var disk: SimulatedDisk
    var logOrigin = LogPosition.origin
    /// What survives when the power fails.
    var durableState: ModelState
    /// Written, maybe not durable: a power cut leaves this or what is durable.
    var betweenState: ModelState?
    /// The state before an installed snapshot, where its journal was left beside the new file.
    var replacedState: ModelState?
    /// The marker of an install under way, with the snapshot.
    var pendingInstall: (install: Install, state: ModelState)?

    // The process.
    var isUp = false
    var life = 0
    var log: SimulatedLog?
    var raft: RaftNode?
    var state: ModelState
    var snapshots: [SnapshotMeta: ModelState] = [:]
    var jobs: [Job] = []
    /// Written by the log's thread and not synced yet.
    var flushing: Write?
    /// Was being written when the process ended.
    var lostWrite: Write?
    var isDiskBusy = false
    var applyQueue: [Committed] = []
    var isApplying = false
    var inbox: [Input] = []
    var isRunPlanned = false
    var nextToken: UInt64 = 0
    var proposals: [UInt64: Request] = [:]
    var proposed: [UInt64: [Proposed]] = [:]
    var reads: [UInt64: Request] = [:]
    var readsWaiting: [(index: UInt64, request: Request)] = []
    var tickFactorPerMille: UInt64 = 1_000
    var pausedUntil: UInt64 = 0

    // What the checks know of it.
    var written = LogShadow()
    var durable = LogShadow()
    var commitSeen: UInt64 = 0
    var membershipSeen: Membership?

    init(id: MemberID, slot: Int, options: Options, founding: Membership, seed: UInt64) {
        self.id = id
        self.slot = slot
        self.options = options
        disk = SimulatedDisk(seed: seed)
        let point = ConfigurationPoint(index: 0, membership: founding)
        state = ModelState(configuration: point)
        durableState = state
    }

    /// Starts the process on what the machine holds.
    /// - Throws: `LogError` when the log is damaged.
    func start(seed: UInt64) throws(LogError) {
        life += 1
        snapshots = [:]
        jobs = []
        flushing = nil
        isDiskBusy = false
        applyQueue = []
        isApplying = false
        inbox = []
        isRunPlanned = false
        proposals = [:]
        proposed = [:]
        reads = [:]
        readsWaiting = []
        if let pendingInstall { state = pendingInstall.state }
        // The log may still be as it was before the snapshot.
        let minimum = pendingInstall == nil ? state.applied.index : durableState.applied.index
        let log = try SimulatedLog(
            disk: disk, origin: logOrigin, minimumIndex: max(minimum, logOrigin.index),
            segmentBytes: options.segmentBytes)
        self.log = log
        if let pendingInstall { try finish(pendingInstall.install, seed: seed) }
        disk = log.disk
        logOrigin = log.origin
        let later = log.recoveredConfigurations.filter { $0.index > state.applied.index }
        let isReset = pendingInstall.map { !$0.install.keepsLog } ?? false
        let node = RaftNode(
            configuration: options.configuration(of: id, seed: seed),
            hardState: isReset ? log.file.hardState.raised(to: log.origin.index) : log.recoveredHardState,
            log: log.extent,
            termStarts: isReset ? [] : log.recoveredTermStarts,
            appliedIndex: state.applied.index,
            configurations: [state.configuration] + (isReset ? [] : later)
        )
        pendingInstall = nil
        raft = node
        commitSeen = node.commitIndex
        membershipSeen = node.membership.membership
        isUp = true
    }

    /// Makes the log begin after the snapshot, where the snapshot replaces it.
    func finish(_ install: Install, seed: UInt64) throws(LogError) {
        guard let log, !install.keepsLog, log.origin != install.meta.position else { return }
        let hardState = log.file.hardState
        try log.reset(to: install.meta.position, hardState, seed: seed)
        disk = log.disk
        logOrigin = log.origin
    }

    func token() -> UInt64 {
        nextToken += 1
        return nextToken
    }
}

extension HardState {
    func raised(to commit: UInt64) -> HardState { HardState(term: term, vote: vote, commit: commit) }
}
