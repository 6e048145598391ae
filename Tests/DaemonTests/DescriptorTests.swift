// SPDX-License-Identifier: Apache-2.0
import Glibc
import Synchronization
import TestSupport
import Testing

@testable import Daemon

/// A refusal closes what it opened once. A second close hits whatever got the number in between: a log, a database.
@Suite struct DescriptorTests {
    private final class Watch: Sendable {
        let end = Atomic(false)
        let lost = Atomic(0)
    }

    @Test func `a refused lock closes nothing of another thread`() async throws {
        let directory = try TemporaryDirectory()
        defer { directory.remove() }
        let held = try DirectoryLock(directory.path)
        await closesNothing("DirectoryLock") { _ = try DirectoryLock(directory.path) }
        await closesNothing("NodeDirectory") { _ = try NodeDirectory(directory.path) }
        withExtendedLifetime(held) {}
    }

    /// Opens and closes a file of its own on one thread while `refused` fails on another.
    private func closesNothing(_ what: String, refused: @escaping @Sendable () throws -> Void) async {
        let watch = Watch()
        async let other: Void = {
            while !watch.end.load(ordering: .relaxed) {
                if close(open("/dev/null", O_RDONLY | O_CLOEXEC)) != 0 { watch.lost.add(1, ordering: .relaxed) }
            }
        }()
        var passed = 0
        for _ in 0..<20_000 where (try? refused()) != nil { passed += 1 }
        watch.end.store(true, ordering: .relaxed)
        await other
        #expect(passed == 0, "\(what) was not refused")
        #expect(watch.lost.load(ordering: .relaxed) == 0, "\(what) closed a file of another thread")
    }
}
