// SPDX-License-Identifier: Apache-2.0
import Glibc

// The log writer of one container. containerd starts it with the container's output on descriptors 3 and 4 and waits
// until 5 is closed; it lives until both are at their end, whatever becomes of containerd or the daemon.

switch Options.parse(Array(CommandLine.arguments.dropFirst())) {
case .failure(let problem):
    let text = "hivemind-log: \(problem.message)\n"
    _ = text.utf8.withContiguousStorageIfAvailable { write(2, $0.baseAddress, $0.count) }
    exit(2)
case .success(let options):
    var capture = Capture(options: options)
    capture.run(stdout: 3, stderr: 4, ready: 5)
}
