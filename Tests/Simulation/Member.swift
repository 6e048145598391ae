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
    let disk: SimulatedDisk
    /// It has promised something already: an empty log would be a lost one.
    var hasLog = false
    /// The product's state machine, as its file is: what a kill leaves.
    let real: RealState?
    /// What the file is to hold at the next start instead.
    var imageLeft: [UInt8]?
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
    var log: LogFile?
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
    var comparison = StateComparison()
    /// Its state differs from a majority's.
    var isStateWrong = false

    // What the checks know of it.
    var written = LogShadow()
    var durable = LogShadow()
    /// Index and hard state on the disk before the last write that was synced.
    var beforeLastSync: (index: UInt64, hardState: HardState) = (0, HardState())
    var commitSeen: UInt64 = 0
    var membershipSeen: Membership?

    init(id: MemberID, slot: Int, options: Options, founding: Membership, seed: UInt64) throws {
        self.id = id
        self.slot = slot
        self.options = options
        disk = SimulatedDisk(seed: seed)
        let point = ConfigurationPoint(index: 0, membership: founding)
        real = options.isReal ? try RealState(founding: founding) : nil
        state = ModelState(configuration: point, isReal: options.isReal)
        if let real { state.image = try real.image() }
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
        comparison = StateComparison()
        isStateWrong = false
        if let pendingInstall { state = pendingInstall.state }
        var logOptions = LogFile.Options()
        logOptions.segmentBytes = options.segmentBytes
        logOptions.mustExist = hasLog
        let log = try LogFile(
            directory: SimulatedLogDirectory(disk),
            minimumIndex: state.applied.index,
            installing: pendingInstall.flatMap { $0.install.keepsLog ? nil : $0.install.meta.position },
            options: logOptions
        )
        self.log = log
        hasLog = true
        pendingInstall = nil
        let found = log.recovered
        let node = RaftNode(
            configuration: options.configuration(of: id, seed: seed),
            hardState: found.hardState,
            log: found.extent,
            termStarts: found.termStarts,
            appliedIndex: state.applied.index,
            configurations: [state.configuration] + found.configurations.filter { $0.index > state.applied.index }
        )
        raft = node
        commitSeen = node.commitIndex
        membershipSeen = node.membership.membership
        isUp = true
    }

    func token() -> UInt64 {
        nextToken += 1
        return nextToken
    }
}
