// SPDX-License-Identifier: Apache-2.0
import Foundation

/// A FIFO mounted into containers: the main process of each writes a line once it runs. The same proof for every
/// product, without polling and without believing what one says of itself.
final class Gate {
    let directory: String
    private let descriptor: Int32

    /// What a container is to run.
    let command = ["/bin/sh", "-c", "echo up >/gate/fifo; exec sleep 100000"]

    init(_ directory: String) throws {
        self.directory = directory
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
        mkfifo("\(directory)/fifo", 0o666)
        descriptor = open("\(directory)/fifo", O_RDWR | O_NONBLOCK | O_CLOEXEC)
        guard descriptor >= 0 else { throw BenchError("cannot make a FIFO in \(directory)") }
    }

    deinit { close(descriptor) }

    var mounts: String { "[{\"type\":\"bind\",\"source\":\"\(directory)\",\"target\":\"/gate\"}]" }

    /// Waits for one line.
    func pass() throws {
        var waiting = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
        guard poll(&waiting, 1, 60_000) == 1 else { throw BenchError("no container began to run within 60 s") }
        var line = [UInt8](repeating: 0, count: 3)
        guard Glibc.read(descriptor, &line, 3) == 3 else { throw BenchError("the gate holds less than a line") }
    }
}
