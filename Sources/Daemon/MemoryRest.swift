// SPDX-License-Identifier: Apache-2.0
internal import CLinux
internal import FoundationEssentials
internal import Glibc
internal import Logging
internal import ServiceLifecycle

/// Says when memory that was needed for a while is given back: at a quiet moment, once more than a little came to what was
/// in use just after the last time.
///
/// What comes back each time is in use: then the pauses grow, so that it costs nothing to speak of. Under load nothing is
/// given back, as it would be wanted again at once.
struct QuietMoment: Hashable, Sendable {
    /// Share of one processor below which a node is quiet, in percent.
    static let busyPercent: Int64 = 10
    static let growthBytes = 3 << 20
    static let pauseMilliseconds: Int64 = 5_000
    static let pauseMillisecondsMax: Int64 = 120_000

    /// Resident just after memory was given back. At first all there is counts, for what the start needed.
    private var kept = 0
    private var pause = QuietMoment.pauseMilliseconds
    /// Since memory was given back.
    private var passed: Int64 = 0

    /// - Parameters:
    ///   - resident: bytes of this process in memory.
    ///   - processorMilliseconds: used since the last look.
    ///   - elapsedMilliseconds: since the last look.
    mutating func isDue(resident: Int, processorMilliseconds: Int64, elapsedMilliseconds: Int64) -> Bool {
        passed += max(0, elapsedMilliseconds)
        guard elapsedMilliseconds > 0, processorMilliseconds * 100 < elapsedMilliseconds * Self.busyPercent,
            passed >= pause
        else { return false }
        guard resident - kept > Self.growthBytes else {
            pause = Self.pauseMilliseconds
            return false
        }
        return true
    }

    /// - Parameter resident: what is left.
    mutating func gaveBack(resident: Int) {
        kept = resident
        passed = 0
        pause = min(pause * 2, Self.pauseMillisecondsMax)
    }
}

/// Gives memory back that is not in use, as long as the node lives.
struct MemoryRest: Service {
    /// Between two looks.
    static let interval = Duration.seconds(5)

    let log: Logger

    func run() async throws {
        await cancelWhenGracefulShutdown {
            var quiet = QuietMoment()
            var (looked, used) = (Clock.monotonic(), Self.processorMilliseconds())
            while !Task.isCancelled {
                do { try await Task.sleep(for: Self.interval) } catch { return }
                let (now, usedNow) = (Clock.monotonic(), Self.processorMilliseconds())
                guard let resident = Self.residentBytes() else { continue }
                let isDue = quiet.isDue(
                    resident: resident, processorMilliseconds: usedNow - used, elapsedMilliseconds: now - looked)
                (looked, used) = (now, usedNow)
                guard isDue else { continue }
                await Self.giveBackElsewhere()
                let left = Self.residentBytes() ?? resident
                quiet.gaveBack(resident: left)
                log.debug(
                    "memory not in use was given back", metadata: ["before": "\(resident)", "after": "\(left)"])
            }
        }
    }

    /// It blocks for some milliseconds.
    private static func giveBackElsewhere() async {
        await withCheckedContinuation { continuation in
            Thread.spawn {
                giveBack()
                continuation.resume()
            }
        }
    }

    /// Pages of the program that were read and what the allocator keeps free.
    static func giveBack() {
        ProgramPages.release()
        hm_trim_memory()
    }

    /// Nil when the kernel does not say.
    static func residentBytes() -> Int? {
        guard let data = FileManager.default.contents(atPath: "/proc/self/statm") else { return nil }
        let words = String(decoding: data, as: UTF8.self).split(separator: " ")
        guard words.count >= 2, let pages = Int(words[1]) else { return nil }
        return pages * Int(sysconf(Int32(_SC_PAGESIZE)))
    }

    private static func processorMilliseconds() -> Int64 {
        var time = timespec()
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time)
        return Int64(time.tv_sec) * 1000 + Int64(time.tv_nsec) / 1_000_000
    }
}
