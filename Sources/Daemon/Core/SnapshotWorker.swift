// SPDX-License-Identifier: Apache-2.0
internal import Logging
internal import Model
internal import Raft
internal import Store
internal import Synchronization

/// The thread that takes, reads, writes and compares whole states, so that nobody else waits for it.
final class SnapshotWorker: Sendable {
    /// Taking snapshots may use this share of the time, as its reciprocal.
    static let timeShare: Int64 = 20
    /// Entries left in the log behind a snapshot, for members that are a little behind.
    static let entriesKept: UInt64 = 5_000
    /// A snapshot this many entries old is still worth sending.
    static let ageMax: UInt64 = 1_000

    /// For a snapshot people keep: the disk is not to be full because of it.
    static let roomCopies: UInt64 = 2
    static let manualKept = 2

    /// Of the log: what it is cut behind and what members are sent.
    let store: SnapshotStore
    /// Taken every so often, for people.
    let scheduled: SnapshotStore
    /// Taken because somebody asked.
    let manual: SnapshotStore
    private let state: StateMachine
    private let log: Logger
    private let mailbox = Mailbox<@Sendable () -> Void>()
    private let ended = Signal()
    /// No snapshot by the way before this time.
    private let pauseUntil = Mutex<Int64>(0)
    /// The state is known to be wrong: nothing is to be made of it.
    private let isDistrusted = Mutex(false)

    /// - Parameter dataDirectory: in which the others of `store` lie.
    init(store: SnapshotStore, dataDirectory: String, state: StateMachine, log: Logger) throws {
        self.store = store
        scheduled = try SnapshotStore(
            path: "\(dataDirectory)/\(NodeDirectory.scheduledName)", kept: SnapshotSchedule.kept)
        manual = try SnapshotStore(path: "\(dataDirectory)/\(NodeDirectory.manualName)", kept: Self.manualKept)
        self.state = state
        self.log = log
    }

    func start() {
        Thread.spawn { [self] in
            defer { ended.raise() }
            while true {
                let (jobs, isClosed) = mailbox.take(waitMilliseconds: 60_000)
                for job in jobs { job() }
                if isClosed, jobs.isEmpty { return }
            }
        }
    }

    func stop() {
        mailbox.close()
        ended.wait(seconds: 10)
    }

    /// Runs `body` on the thread, after what waits there.
    func run<Value: Sendable>(_ body: @escaping @Sendable () throws -> Value) async throws -> Value {
        try await withCheckedThrowingContinuation { continuation in
            mailbox.put { continuation.resume(with: Result { try body() }) }
        }
    }

    /// Does `body` on the thread, when it gets to it.
    func put(_ body: @escaping @Sendable () -> Void) { mailbox.put(body) }

    /// The state is wrong, and with it what was taken of it: nobody gets that, this node itself least of all.
    func distrust() {
        isDistrusted.withLock { $0 = true }
        put { [self] in
            do {
                for store in [store, scheduled, manual] { try store.forget() }
            } catch {
                log.warning("snapshots of a wrong state could not be removed", metadata: ["error": "\(error)"])
            }
        }
    }

    /// The state was replaced.
    func trust() { isDistrusted.withLock { $0 = false } }

    /// On the thread.
    func take() throws -> SnapshotManifest {
        let began = Clock.monotonic()
        let manifest = try take(into: store, copies: 1)
        let took = Clock.monotonic() - began
        pauseUntil.withLock { $0 = began + took * Self.timeShare }
        return manifest
    }

    /// On the thread: the state as it is now, ready to be read.
    func fresh() throws -> SnapshotReader {
        try store.reader(of: try take(into: store, copies: Self.roomCopies).name)
    }

    /// On the thread.
    func takeScheduled() throws -> SnapshotManifest { try take(into: scheduled, copies: Self.roomCopies) }

    /// On the thread.
    func takeManual() throws -> SnapshotManifest { try take(into: manual, copies: Self.roomCopies) }

    private func take(into store: SnapshotStore, copies: UInt64) throws -> SnapshotManifest {
        guard !isDistrusted.withLock({ $0 }) else {
            throw SnapshotError(
                .failed, "the state of this node differs from a majority's: no snapshot is taken of it",
                hint: "it is being replaced; ask another node, or try again in a moment")
        }
        let began = Clock.monotonic()
        let manifest = try store.take(from: state, at: Clock.now(), copies: copies)
        let took = Clock.monotonic() - began
        log.debug(
            "snapshot taken",
            metadata: [
                "index": "\(manifest.position.index)", "bytes": "\(manifest.bytes)", "milliseconds": "\(took)",
            ])
        return manifest
    }

    /// Takes one because enough was applied, unless taking them would take too much of the time.
    func takeByTheWay(then body: @escaping @Sendable (SnapshotManifest) -> Void) {
        guard Clock.monotonic() >= pauseUntil.withLock({ $0 }) else { return }
        put { [self] in
            do {
                body(try take())
            } catch {
                log.warning("no snapshot could be taken, the log keeps growing", metadata: ["error": "\(error)"])
            }
        }
    }
}

/// A snapshot another member sends, on its way into the store.
private final class Reception: SnapshotReception {
    private let worker: SnapshotWorker
    private let receiver: Mutex<SnapshotReceiver>
    private let received: @Sendable (SnapshotManifest) -> Void
    let resumeOffset: UInt64

    init(
        _ receiver: sending SnapshotReceiver, worker: SnapshotWorker,
        received: @escaping @Sendable (SnapshotManifest) -> Void
    ) {
        self.worker = worker
        self.received = received
        resumeOffset = receiver.offset
        self.receiver = Mutex(receiver)
    }

    func write(_ chunk: SnapshotChunk) async throws {
        try await worker.run { [self] in try receiver.withLock { try $0.write(chunk) } }
    }

    func finish() async throws -> SnapshotVerdict {
        let manifest = try await worker.run { [self] in try receiver.withLock { try $0.finish() } }
        received(manifest)
        return .accepted
    }

    // What arrived stays and is gone on with.
    func abort() async {}
}

extension SnapshotWorker {
    /// Begins to receive what another member offers.
    func receive(
        _ offer: SnapshotOffer, clusterID: String, received: @escaping @Sendable (SnapshotManifest) -> Void
    ) async throws -> any SnapshotReception {
        try await run { [self] in
            let manifest = try SnapshotManifest(decoding: offer.manifest)
            guard manifest.meta == offer.meta, manifest.bytes == offer.bytes else {
                throw SnapshotError(.damaged, "the offer and the manifest speak of different snapshots")
            }
            let receiver = try SnapshotReceiver(manifest, into: store, clusterID: clusterID)
            return Reception(receiver, worker: self, received: received)
        }
    }

    /// A snapshot fresh enough to be sent, ready to be read.
    func source(term: UInt64, applied: UInt64, logBase: UInt64) async throws -> (SnapshotSource, SnapshotMeta) {
        let reader = try await run { [self] in
            var newest = store.newest
            if newest.map({ $0.position.index < logBase || $0.position.index + Self.ageMax < applied }) ?? true {
                newest = try take()
            }
            guard let newest else { throw SnapshotError(.notFound, "there is no snapshot") }
            return try store.reader(of: newest.name)
        }
        let manifest = reader.manifest
        let offer = SnapshotOffer(
            term: term, meta: manifest.meta, bytes: manifest.bytes, manifest: try manifest.encoded())
        let source = SnapshotSource(offer: offer) { [self] offset in
            try await run {
                guard let chunk = try reader.chunk(at: offset) else {
                    throw SnapshotError(.outOfOrder, "the snapshot ends before byte \(offset)")
                }
                return chunk
            }
        }
        return (source, manifest.meta)
    }
}
