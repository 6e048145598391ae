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
        /// The disk is full, said once. Writes wait and are tried again every second and whenever something was given
        /// back; `persisted` follows when they succeed. Reads and compaction go on meanwhile.
        case noSpace(LogError)
        /// Whether less is free than should be: then nothing new should be proposed but what frees space. Said when it
        /// changes, at first only if so.
        case space(isShort: Bool)
        /// Final, reported once: nothing more becomes durable. What was submitted and not persisted may or may not be on
        /// disk; end the process and open the log anew.
        case failed(LogError)
    }

    /// Bytes of one record at most, unless one entry alone takes more: bounds the time one commit can take.
    static let batchBytesMax = 4 << 20
    /// Bytes of records waiting at once. More than a follower's core takes in before it is told that something is durable,
    /// which is 32 MiB and one message: a full queue is a fault of the caller and ends the node.
    public static let queueBytesMax = 48 << 20
    /// Between two tries on a full disk, and at most between two looks at the space while it is short.
    static let retryMilliseconds = 1_000
    /// Between two looks at the space when nothing else happens.
    static let idleLookMilliseconds = 10_000

    private let queue: LogQueue
    private let gauge: LogGauge
    private let batchBytesMax: Int

    /// - Parameters:
    ///   - queueBytesMax: bound on what is submitted and not yet durable, in bytes of records.
    ///   - freeBytesMin: below this much free on the disk, space is reported short; it must rise a sixteenth above to be
    ///     reported well again. 0: nothing is watched.
    ///   - report: called on the log thread, in the order of submission.
    public init(
        log: sending LogFile,
        queueBytesMax: Int = LogWriter.queueBytesMax,
        freeBytesMin: Int = 0,
        report: @escaping @Sendable (Report) -> Void
    ) throws(LogError) {
        batchBytesMax = min(Self.batchBytesMax, log.recordBytesMax)
        queue = LogQueue(bytesMax: queueBytesMax)
        gauge = LogGauge(log)
        let worker = LogWorker(
            log: log, queue: queue, gauge: gauge, batchBytesMax: batchBytesMax, freeBytesMin: freeBytesMin,
            report: report)
        try queue.start { worker.run() }
    }

    deinit {
        queue.end()
    }

    /// Of this moment; from any thread, without waiting for the log's.
    public var picture: LogPicture { gauge.picture(at: LogQueue.nowMilliseconds) }

    /// Puts a write at the end of the queue; its receipt, or a newer one, is reported when it is durable.
    /// - Throws: `queueFull`, `tooLarge` (an entry that fits no record), `closed`; the write is then not queued, and as
    ///   later ones would leave a gap, the caller must end.
    public func submit(_ write: Write) throws(LogError) {
        // Each piece becomes part of one record: only a write of more than a record's size is divided.
        for piece in try pieces(write) {
            try queue.put(.write(piece, bytes: LogFile.payloadBytes(of: piece)))
        }
    }

    /// Reads entries as `LogFile.entries` does, after everything submitted before; while that waits for room on the disk,
    /// at once if it cannot change what is read.
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

    /// Empties the log as `LogFile.reset` does, after everything submitted before; writes submitted later follow it.
    /// - Parameter completion: called on the log thread once it is durable, or cannot be.
    public func reset(to position: LogPosition, completion: @escaping @Sendable (Result<Void, LogError>) -> Void) {
        do {
            try queue.put(.reset(position, completion))
        } catch {
            completion(.failure(error))
        }
    }

    /// Frees the ballast's room, for a state that cannot be written because the disk is full. It comes back by itself.
    /// - Throws: `closed`, `queueFull`.
    public func giveUpBallast() throws(LogError) {
        try queue.put(.giveUpBallast)
    }

    /// Takes no more, makes durable what was submitted, and waits for the thread to end. Blocks; safe to call twice. On a
    /// full disk it reports `failed`. Not to be called from a report.
    public func shutdown() {
        queue.close()
    }

    private func pieces(_ write: Write) throws(LogError) -> [Write] {
        guard LogFile.payloadBytes(of: write) > batchBytesMax else { return [write] }
        var pieces: [Write] = []
        // Only the last piece is what was asked for: until then the receipt is of the write before.
        let before = max(1, write.sequence) - 1
        var piece = Write(sequence: before, hardState: write.hardState, truncateFrom: write.truncateFrom)
        var bytes = LogFile.payloadBytes(of: piece)
        for entry in write.entries {
            let alone = LogFile.payloadBytes(of: Write(entries: [entry]))
            guard alone <= batchBytesMax else {
                throw LogError(.tooLarge, "entry \(entry.position) of \(entry.payload.count) bytes fits no record")
            }
            let added = alone - LogFile.payloadBytes(of: Write())
            if bytes + added > batchBytesMax, !piece.entries.isEmpty {
                pieces.append(piece)
                piece = Write(sequence: before)
                bytes = LogFile.payloadBytes(of: piece)
            }
            piece.entries.append(entry)
            bytes += added
        }
        piece.sequence = write.sequence
        piece.unlocks = write.unlocks
        pieces.append(piece)
        return pieces
    }
}
