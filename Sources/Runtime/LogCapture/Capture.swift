// SPDX-License-Identifier: Apache-2.0
import Glibc

/// Reads both streams to their ends and writes lines. One thread, about 200 KiB of buffers.
struct Capture {
    private static let readBytesMax = 64 << 10

    private var file: RotatingFile
    private var splitters = [LineSplitter(stream: "stdout"), LineSplitter(stream: "stderr")]

    init(options: Options) { file = RotatingFile(options: options) }

    mutating func run(stdout: Int32, stderr: Int32, ready: Int32) {
        // The end of the streams is the only sign to stop: what was written before it must not be lost.
        for number in [SIGTERM, SIGINT, SIGHUP, SIGPIPE, SIGXFSZ] { signal(number, SIG_IGN) }
        file.ensureOpen()
        var mark: UInt8 = 1
        _ = write(ready, &mark, 1)
        close(ready)

        var sources = [stdout, stderr].map { pollfd(fd: $0, events: Int16(POLLIN), revents: 0) }
        var buffer = [UInt8](repeating: 0, count: Self.readBytesMax)
        while sources.contains(where: { $0.fd >= 0 }) {
            guard poll(&sources, nfds_t(sources.count), -1) >= 0 || errno == EINTR else { break }
            for index in sources.indices where sources[index].fd >= 0 && sources[index].revents != 0 {
                let count = read(sources[index].fd, &buffer, buffer.count)
                if count > 0 {
                    splitters[index].take(buffer[..<count], at: LineTime.now()) { file.append($0) }
                } else if count == 0 || (errno != EINTR && errno != EAGAIN) {
                    splitters[index].finish(at: LineTime.now()) { file.append($0) }
                    sources[index].fd = -1
                }
                sources[index].revents = 0
            }
            file.flush()
        }
        file.flush()
    }
}
