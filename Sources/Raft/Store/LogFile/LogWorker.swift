// SPDX-License-Identifier: Apache-2.0

internal import Raft

/// The log thread's work: merges writes, serves the rest in order, and waits out a full disk without standing still.
///
/// `@unchecked Sendable`: made on the caller's thread, then touched by the log thread only; the log was `sending`, the
/// rest is Sendable.
final class LogWorker: @unchecked Sendable {
    /// Writes that become one record.
    private struct Merged {
        var write = Write()
        /// As counted by the queue; 0 when there is none.
        var bytes = 0
    }

    private enum Stalled {
        case write(Merged)
        case reset(LogPosition, @Sendable (Result<Void, LogError>) -> Void)
    }

    private let log: LogFile
    private let queue: LogQueue
    private let gauge: LogGauge
    private let batchBytesMax: Int
    private let freeBytesMin: Int
    private let report: @Sendable (LogWriter.Report) -> Void

    private var failure: LogError?
    /// Not begun yet, in order.
    private var backlog: [LogQueue.Job] = []
    /// Waits for room on the disk, and everything in the backlog that must come after it waits too.
    private var stalled: Stalled?
    private var retryAt = 0
    private var saidFull = false
    /// When to look at the space next; like `retryAt` in milliseconds of the monotonic clock.
    private var lookAt = 0
    private var isShort = false

    init(
        log: LogFile,
        queue: LogQueue,
        gauge: LogGauge,
        batchBytesMax: Int,
        freeBytesMin: Int,
        report: @escaping @Sendable (LogWriter.Report) -> Void
    ) {
        self.log = log
        self.queue = queue
        self.gauge = gauge
        self.batchBytesMax = batchBytesMax
        self.freeBytesMin = freeBytesMin
        self.report = report
    }

    func run() {
        lookAtSpace()
        while let jobs = queue.take(milliseconds: waitMilliseconds, idle: { [self] in prepare() }) {
            if backlog.isEmpty { backlog = jobs } else { backlog += jobs }
            work()
            lookAtSpace()
        }
        end()
    }

    private func work() {
        while true {
            if stalled != nil {
                serveAroundStall()
                guard failure != nil || LogQueue.nowMilliseconds >= retryAt else { return }
                retry()
                guard stalled == nil else { return }
            }
            serve()
            guard stalled != nil else { return }
        }
    }

    /// What is stalled gets a last chance; then nothing more becomes durable.
    private func end() {
        retry()
        if stalled == nil { serve() }
        guard stalled != nil else { return }
        fail(LogError(.noSpace, "the log was shut down while writes waited for room on the disk"))
        retry()
        serve()
    }

    // MARK: In order

    /// Works through the backlog until it is empty or the disk is full.
    private func serve() {
        let jobs = backlog
        backlog = []
        var merged = Merged()
        for (offset, job) in jobs.enumerated() {
            if endsBatch(job, merged) {
                flush(merged)
                merged = Merged()
            }
            guard stalled == nil else {
                backlog = Array(jobs[offset...])
                return
            }
            switch job {
            case .write(let write, let bytes): merge(write, bytes, into: &merged)
            case .read(let range, let bytesMax, let completion): read(range, bytesMax, completion)
            case .compact(let index): compact(through: index)
            case .giveUpBallast: attempt { log throws(LogError) in try log.giveUpBallast() }
            case .reset(let position, let completion): reset(to: position, completion)
            }
        }
        flush(merged)
    }

    private func endsBatch(_ job: LogQueue.Job, _ merged: Merged) -> Bool {
        guard case .write(let write, let bytes) = job else { return true }
        return write.truncateFrom != nil || merged.bytes + bytes > batchBytesMax
    }

    private func merge(_ write: Write, _ bytes: Int, into merged: inout Merged) {
        if let state = write.hardState { merged.write.hardState = state }
        if let from = write.truncateFrom { merged.write.truncateFrom = from }
        merged.write.entries += write.entries
        merged.write.sequence = write.sequence
        merged.write.unlocks += write.unlocks
        merged.bytes += bytes
    }

    private func flush(_ merged: Merged) {
        guard merged.bytes > 0 else { return }
        guard failure == nil else { return queue.release(merged.bytes) }
        do {
            try log.append(merged.write)
            try sync(merged.write)
        } catch {
            if error.code == .noSpace { return stall(.write(merged), error) }
            queue.release(merged.bytes)
            return fail(error)
        }
        queue.release(merged.bytes)
        saidFull = false
        report(.persisted(merged.write.receipt, unlocked: merged.write.unlocks))
    }

    private func sync(_ write: Write) throws(LogError) {
        guard write.changesLog else { return try log.sync() }
        let start = LogQueue.nowMicroseconds
        try log.sync()
        let end = LogQueue.nowMicroseconds
        gauge.synced(microseconds: end - start, at: end / 1_000)
        gauge.update(extent: log.extent, fileBytes: log.fileBytes)
    }

    private func reset(to position: LogPosition, _ completion: @escaping @Sendable (Result<Void, LogError>) -> Void) {
        if let failure { return completion(.failure(failure)) }
        do {
            try log.reset(to: position)
        } catch {
            if error.code == .noSpace { return stall(.reset(position, completion), error) }
            fail(error)
            return completion(.failure(error))
        }
        saidFull = false
        gauge.update(extent: log.extent, fileBytes: log.fileBytes)
        completion(.success(()))
    }

    private func read(
        _ range: Range<UInt64>, _ bytesMax: Int, _ completion: @Sendable (Result<[Entry], LogError>) -> Void
    ) {
        if let failure { return completion(.failure(failure)) }
        do {
            completion(.success(try log.entries(range, bytesMax: bytesMax)))
        } catch {
            if error.code != .notAvailable { fail(error) }
            completion(.failure(error))
        }
    }

    private func compact(through index: UInt64) {
        attempt { log throws(LogError) in
            try log.compact(through: index)
            gauge.update(extent: log.extent, fileBytes: log.fileBytes)
        }
    }

    // MARK: Full disk

    private func stall(_ work: Stalled, _ error: LogError) {
        stalled = work
        retryAt = LogQueue.nowMilliseconds + LogWriter.retryMilliseconds
        guard !saidFull else { return }
        saidFull = true
        lookAt = 0
        report(.noSpace(error))
    }

    private func retry() {
        let work = stalled
        stalled = nil
        switch work {
        case .write(let merged): flush(merged)
        case .reset(let position, let completion): reset(to: position, completion)
        case nil: break
        }
    }

    /// What need not wait: compaction, which makes room, and reads of what no waiting write can change.
    private func serveAroundStall() {
        var readableEnd = log.extent.last.index + 1
        switch stalled {
        case .write(let merged): readableEnd = min(readableEnd, merged.write.truncateFrom ?? .max)
        case .reset: readableEnd = 0
        case nil: return
        }
        var rest: [LogQueue.Job] = []
        for job in backlog {
            switch job {
            case .write(let write, _): readableEnd = min(readableEnd, write.truncateFrom ?? .max)
            case .reset: readableEnd = 0
            case .read(let range, let bytesMax, let completion):
                guard range.upperBound > readableEnd else {
                    read(range, bytesMax, completion)
                    continue
                }
                if rest.count >= LogQueue.jobsMax {
                    completion(.failure(LogError(.queueFull, "\(rest.count) jobs wait for room on the disk")))
                    continue
                }
            case .compact(let index):
                compact(through: index)
                retryAt = 0
                continue
            case .giveUpBallast:
                attempt { log throws(LogError) in try log.giveUpBallast() }
                retryAt = 0
                continue
            }
            rest.append(job)
        }
        backlog = rest
    }

    private var waitMilliseconds: Int? {
        guard failure == nil else { return nil }
        if stalled != nil { return max(1, min(retryAt - LogQueue.nowMilliseconds, LogWriter.retryMilliseconds)) }
        if isShort || log.isShortOfSpace { return LogWriter.retryMilliseconds }
        return freeBytesMin > 0 || log.missingBallastBytes > 0 ? LogWriter.idleLookMilliseconds : nil
    }

    /// At most once a second: how much is free, whether that is to be reported, and what can be made again.
    private func lookAtSpace() {
        let now = LogQueue.nowMilliseconds
        guard failure == nil, now >= lookAt else { return }
        lookAt = now + LogWriter.retryMilliseconds
        if log.isShortOfSpace { log.retryPreparation() }
        let missing = log.missingBallastBytes
        guard freeBytesMin > 0 || missing > 0 else { return }
        let enough = freeBytesMin + freeBytesMin / 16
        do {
            let free = try log.freeBytes()
            // Twice, so that what follows the recovery does not take it at once again.
            if missing > 0, stalled == nil, free >= enough + 2 * missing { try log.restoreBallast() }
            let isShortNow = free < (isShort ? enough : freeBytesMin)
            guard isShortNow != isShort else { return }
            isShort = isShortNow
            gauge.update(isShort: isShort)
            report(.space(isShort: isShort))
        } catch {
            fail(error)
        }
    }

    /// A piece of what is ahead when there is nothing else to do. Also done between batches, for a writer never idle.
    /// - Returns: whether there is more to do.
    private func prepare() -> Bool {
        guard failure == nil, stalled == nil, log.wantsPreparation else { return false }
        attempt { log throws(LogError) in try log.prepare() }
        return failure == nil && log.wantsPreparation
    }

    // MARK: Failure

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
