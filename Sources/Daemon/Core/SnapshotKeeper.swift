// SPDX-License-Identifier: Apache-2.0
internal import Logging
internal import Model
internal import Raft
internal import Store
internal import Synchronization

/// Takes a snapshot of the state every so often, for the day on which the whole cluster is lost.
final class SnapshotKeeper: Sendable {
    private let snapshots: SnapshotWorker
    private let log: Logger
    private let failure = Mutex<String?>(nil)

    init(_ snapshots: SnapshotWorker, log: Logger) {
        self.snapshots = snapshots
        self.log = log
    }

    /// What a person should know: nil while all goes well.
    var condition: String? { failure.withLock { $0 } }

    /// Until the node stops.
    /// - Parameter interval: at least a second.
    func run(every interval: Duration) async {
        var schedule = SnapshotSchedule(interval: Int64(interval / .milliseconds(1)))
        while true {
            let newest = snapshots.scheduled.newest?.createdAt
            let wait = schedule.wait(newest: newest, now: Clock.now(), monotonic: Clock.monotonic())
            guard wait == 0 else {
                // In steps: how much of a long sleep passes while the machine itself sleeps is not agreed.
                do { try await Task.sleep(for: .milliseconds(min(wait, 60_000))) } catch { return }
                continue
            }
            do {
                let manifest = try await snapshots.run { [snapshots] in try snapshots.takeScheduled() }
                schedule.taken(monotonic: Clock.monotonic())
                failure.withLock { $0 = nil }
                log.info("a scheduled snapshot was taken", metadata: ["index": "\(manifest.position.index)"])
            } catch {
                schedule.failed(monotonic: Clock.monotonic())
                tell("\(error)")
            }
        }
    }

    /// Once, however often it fails.
    private func tell(_ why: String) {
        let text = "the scheduled snapshot was skipped: \(why)"
        let isNew = failure.withLock { failure in
            defer { failure = text }
            return failure == nil
        }
        if isNew { log.warning("a scheduled snapshot was skipped", metadata: ["error": "\(why)"]) }
    }
}
