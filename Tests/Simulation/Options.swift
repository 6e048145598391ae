// SPDX-License-Identifier: Apache-2.0

internal import Raft
internal import TestSupport

/// What a run is like, drawn from its seed. Each kind of fault is on in some seeds and off in others: a bug that needs
/// quiet in one place and trouble in another is found that way.
///
/// Times in microseconds.
struct Options {
    enum Fault: CaseIterable {
        case kill, powerCut, crashInDiskWork, pause, drift, partition, clog, syncError, fullDisk, bitRot, loseDisk
    }

    enum Operation: CaseIterable {
        case transfer, addLearner, promote, demote, remove, replace, readd
    }

    var voters = 3
    var clients = 4
    var watchers = 2
    var keys = 4
    var duration: UInt64 = 20_000_000
    var faults: [Fault] = []
    var operations: [Operation] = []
    var faultPause: UInt64 = 1_000_000
    var operationPause: UInt64 = 1_500_000
    var thinking: UInt64 = 30_000
    /// How long a client waits for an answer before it asks somebody else.
    var patience: UInt64 = 1_500_000

    // Network.
    var dropPerMille = 0
    var duplicatePerMille = 0
    var delay: UInt64 = 1_000
    var tailPerMille = 0
    var tail: UInt64 = 2_000_000

    // Member.
    var tick: UInt64 = 50_000
    var electionTicks = 10
    var heartbeatTicks = 2
    var appendBytesMax = 4_000
    var inFlightMax = 8
    var unappliedEntriesMax = 200
    var keptEntriesMax = 50
    var promotionLagMax: UInt64 = 20
    var segmentBytes = 8 << 10
    var diskDelay: UInt64 = 1_000
    var applyDelay: UInt64 = 500
    var inboxDelay: UInt64 = 0
    var paddingMax = 60
    /// Entries between two durable points of the state.
    var checkpointEntries = 60
    /// Entries kept in the log below the durable state.
    var keptInLog: UInt64 = 40
    /// Whoever begins to lead is soon killed or cut off, alone or with one other: terms follow one another quickly, and logs
    /// end in entries that only few have.
    var leadersFall = false
    /// Whoever leads soon hears late and is then heard no more: it is replaced without knowing.
    var leadersFreeze = false
    /// Members have the product's state machine beside the model.
    var isReal = false
    /// States go wrong unnoticed, and members compare theirs at every so many entries; 0: neither.
    var comparedEvery: UInt64 = 0

    init(seed: UInt64) {
        var random = SeededRandom(seed: seed ^ 0x6F70_7469_6F6E_7321)
        func pick<Value>(_ values: [Value]) -> Value { values[Int.random(in: values.indices, using: &random)] }
        voters = pick([1, 2, 3, 3, 3, 3, 4, 5, 5])
        clients = pick([2, 4, 8])
        keys = pick([1, 3, 6])
        duration = pick([10, 15, 25]) * 1_000_000
        faults = Fault.allCases.filter { _ in Bool.random(using: &random) }
        operations = Operation.allCases.filter { _ in Bool.random(using: &random) }
        if random.oneIn(4) { operations = [] }
        faultPause = pick([300, 1_000, 3_000]) * 1_000
        operationPause = pick([300, 1_000, 2_000]) * 1_000
        thinking = pick([3, 20, 80]) * 1_000
        dropPerMille = pick([0, 0, 10, 100, 300])
        duplicatePerMille = pick([0, 0, 10, 200])
        delay = pick([200, 2_000, 20_000])
        tailPerMille = pick([0, 0, 10, 100])
        tail = pick([100, 1_000, 5_000]) * 1_000
        electionTicks = pick([6, 10, 20])
        heartbeatTicks = pick([1, 2])
        appendBytesMax = pick([200, 1_000, 4_000])
        inFlightMax = pick([1, 3, 16])
        unappliedEntriesMax = pick([20, 200])
        keptEntriesMax = pick([0, 5, 100])
        promotionLagMax = pick([5, 50])
        segmentBytes = pick([4, 8, 16]) << 10
        diskDelay = pick([100, 2_000, 20_000, 100_000])
        applyDelay = pick([50, 2_000, 50_000])
        inboxDelay = pick([0, 0, 500, 5_000])
        paddingMax = pick([0, 60, 160])
        checkpointEntries = pick([5, 40, 200])
        keptInLog = pick([0, 10, 100])
        isReal = seed % 50 == 9
        switch seed % 8 {
        case 3:
            comparedEvery = pick([8, 32])
            voters = pick([3, 3, 5])
        case 5:
            leadersFall = true
            voters = pick([3, 5, 5])
            faults = faults.filter { $0 == .kill || $0 == .drift || $0 == .pause }
            if Bool.random(using: &random) { operations = [] }
            clients = 8
            thinking = 3_000
            duration = 25_000_000
            dropPerMille = 0
            delay = pick([2_000, 20_000])
            diskDelay = pick([100, 2_000])
            appendBytesMax = pick([100, 400])
            inFlightMax = pick([1, 3])
            electionTicks = 6
        case 7:
            leadersFreeze = true
            voters = pick([3, 3, 5])
            // Nobody stays long with one who does not answer: others are asked, and do.
            patience = 150_000
            faults = faults.filter { $0 == .kill }
            clients = 8
            thinking = 3_000
            dropPerMille = 0
            tailPerMille = 0
            delay = pick([2_000, 20_000])
            diskDelay = pick([100, 2_000])
            applyDelay = pick([50, 2_000])
            electionTicks = 6
            heartbeatTicks = 1
        default: break
        }
    }

    func configuration(of id: MemberID, seed: UInt64) -> RaftNode.Configuration {
        var configuration = RaftNode.Configuration(id: id)
        configuration.seed = seed
        configuration.electionTicks = electionTicks
        configuration.heartbeatTicks = heartbeatTicks
        configuration.appendBytesMax = appendBytesMax
        configuration.inFlightMax = inFlightMax
        configuration.unappliedEntriesMax = unappliedEntriesMax
        configuration.keptEntriesMax = keptEntriesMax
        configuration.keptBytesMax = 2_000
        configuration.promotionLagMax = promotionLagMax
        return configuration
    }
}
