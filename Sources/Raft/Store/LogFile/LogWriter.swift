// SPDX-License-Identifier: Apache-2.0

public import Raft

/// The one thread that owns a `LogFile`: everything that arrives during an fdatasync goes out with the next one.
///
/// No timer and no added latency: an idle writer writes at once. Reports and completions run on the log thread and must
/// not block it.
public final class LogWriter: Sendable {
    public enum Report: Sendable {
        /// Durable: this and everything submitted before it. The messages waited for that and may leave now.
        case persisted(Receipt, unlocked: [Message])
        /// The disk is full. The writes wait and are tried again every second; `persisted` follows when one succeeds.
        case noSpace(LogError)
        /// Final, reported once: nothing more becomes durable. What was submitted and not persisted may or may not be on
        /// disk; end the process and open the log anew.
        case failed(LogError)
    }

    /// Bytes of one record at most, unless one entry alone takes more: bounds the time one commit can take.
    static let batchBytesMax = 4 << 20
    static let noSpaceRetryMilliseconds = 1_000

    private let queue: LogQueue
    private let batchBytesMax: Int

    /// - Parameters:
    ///   - queueBytesMax: bound on what is submitted and not yet durable, in bytes of records. The core's own bound
    ///     (16 MiB) lies below it, so that reaching it is a fault of the caller.
    ///   - report: called on the log thread, in the order of submission.
    public init(
        log: sending LogFile,
        queueBytesMax: Int = 32 << 20,
        report: @escaping @Sendable (Report) -> Void
    ) throws(LogError) {
        batchBytesMax = min(Self.batchBytesMax, log.recordBytesMax)
        queue = LogQueue(bytesMax: queueBytesMax)
        let worker = LogWorker(log: log, queue: queue, batchBytesMax: batchBytesMax, report: report)
        try queue.start { worker.run() }
    }

    deinit {
        queue.end()
    }

    /// Puts a write at the end of the queue; its receipt, or a newer one, is reported when it is durable.
    /// - Throws: `queueFull`, `tooLarge` (an entry that fits no record), `closed`; the write is then not queued, and as
    ///   later ones would leave a gap, the caller must end.
    public func submit(_ write: Write) throws(LogError) {
        // Each piece becomes part of one record: only a write of more than a record's size is divided.
        for piece in try pieces(write) {
            try queue.put(.write(piece, bytes: LogFile.payloadBytes(of: piece)))
        }
    }

    /// Reads entries as `LogFile.entries` does, after everything submitted before.
    public func read(
        _ range: Range<UInt64>,
        bytesMax: Int,
        completion: @escaping @Sendable (Result<[Entry], LogError>) -> Void
    ) {
        do {
            try queue.put(.read(range, bytesMax: bytesMax, completion))
        } catch {
            completion(.failure(error))
        }
    }

    /// Removes segments as `LogFile.compact` does; errors are reported as `failed`.
    /// - Throws: `closed`, `queueFull`; nothing is lost then but room on the disk.
    public func compact(through index: UInt64) throws(LogError) {
        try queue.put(.compact(index))
    }

    /// Takes no more, makes durable what was submitted, and waits for the thread to end. Blocks; safe to call twice. On a
    /// full disk it reports `failed`. Not to be called from a report.
    public func shutdown() {
        queue.close()
    }

    private func pieces(_ write: Write) throws(LogError) -> [Write] {
        guard LogFile.payloadBytes(of: write) > batchBytesMax else { return [write] }
        var pieces: [Write] = []
        var piece = Write(
            sequence: max(1, write.sequence) - 1, hardState: write.hardState, truncateFrom: write.truncateFrom)
        for entry in write.entries {
            piece.entries.append(entry)
            guard LogFile.payloadBytes(of: piece) > batchBytesMax else { continue }
            piece.entries.removeLast()
            guard !piece.entries.isEmpty else {
                throw LogError(.tooLarge, "entry \(entry.position) of \(entry.payload.count) bytes fits no record")
            }
            pieces.append(piece)
            piece = Write(sequence: max(1, write.sequence) - 1, entries: [entry])
        }
        piece.sequence = write.sequence
        piece.unlocks = write.unlocks
        pieces.append(piece)
        return pieces
    }
}

/// Runs on the log thread and nowhere else.
private final class LogWorker: @unchecked Sendable {
    // Made on the caller's thread, then touched by the log thread only: the log was `sending`, the rest is Sendable.
    private let log: LogFile
    private let queue: LogQueue
    private let batchBytesMax: Int
    private let report: @Sendable (LogWriter.Report) -> Void
    private var failure: LogError?

    init(
        log: LogFile,
        queue: LogQueue,
        batchBytesMax: Int,
        report: @escaping @Sendable (LogWriter.Report) -> Void
    ) {
        self.log = log
        self.queue = queue
        self.batchBytesMax = batchBytesMax
        self.report = report
    }

    func run() {
        while let jobs = queue.take(idle: { [self] in prepare() }) {
            var batch = Write()
            var bytes = 0
            for job in jobs {
                switch job {
                case .write(let write, let size):
                    if write.truncateFrom != nil || bytes + size > batchBytesMax { flush(&batch, &bytes) }
                    if let state = write.hardState { batch.hardState = state }
                    batch.truncateFrom = batch.truncateFrom ?? write.truncateFrom
                    batch.entries += write.entries
                    batch.sequence = write.sequence
                    batch.unlocks += write.unlocks
                    bytes += size
                case .read(let range, let bytesMax, let completion):
                    flush(&batch, &bytes)
                    completion(Result { () throws(LogError) in try entries(range, bytesMax) })
                case .compact(let index):
                    flush(&batch, &bytes)
                    attempt { log throws(LogError) in try log.compact(through: index) }
                }
            }
            flush(&batch, &bytes)
        }
    }

    private func flush(_ batch: inout Write, _ bytes: inout Int) {
        guard bytes > 0 else { return }
        defer {
            queue.release(bytes)
            batch = Write()
            bytes = 0
        }
        while failure == nil {
            do {
                try log.append(batch)
                try log.sync()
                report(.persisted(batch.receipt, unlocked: batch.unlocks))
                return
            } catch {
                guard error.code == .noSpace else { return fail(error) }
                report(.noSpace(error))
                guard queue.pause(milliseconds: LogWriter.noSpaceRetryMilliseconds) else { return fail(error) }
            }
        }
    }

    private func entries(_ range: Range<UInt64>, _ bytesMax: Int) throws(LogError) -> [Entry] {
        if let failure { throw failure }
        do {
            return try log.entries(range, bytesMax: bytesMax)
        } catch {
            if error.code != .notAvailable { fail(error) }
            throw error
        }
    }

    /// A piece of the next segment when there is nothing else to do. Also done between batches, for a writer never idle.
    /// - Returns: whether there is more to do.
    private func prepare() -> Bool {
        guard failure == nil, log.wantsPreparation else { return false }
        attempt { log throws(LogError) in try log.prepare() }
        return failure == nil && log.wantsPreparation
    }

    private func attempt(_ work: (LogFile) throws(LogError) -> Void) {
        guard failure == nil else { return }
        do { try work(log) } catch { fail(error) }
    }

    private func fail(_ error: LogError) {
        guard failure == nil else { return }
        failure = error
        queue.refuse(error)
        report(.failed(error))
    }
}
