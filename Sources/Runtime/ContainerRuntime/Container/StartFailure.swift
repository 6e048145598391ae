// SPDX-License-Identifier: Apache-2.0
internal import GRPCCore
internal import Model

/// Reads out of containerd's and runc's text why a container did not start. Their failures all have code `unknown`, so
/// the text is all there is; it is matched on the fragments runc 1.1 to 1.3 share.
enum StartFailure {
    /// - Parameter command: the program asked for, for the message.
    static func make(_ error: any Error, container: ContainerSpec) -> any Error {
        guard let error = error as? RPCError, !RuntimeError.isCancellation(error) else {
            return RuntimeError.make(error, doing: "start container `\(container.id)`")
        }
        switch error.code {
        case .unknown, .internalError, .invalidArgument, .failedPrecondition, .notFound:
            return RuntimeError(reason(text: error.message))
        default:
            return RuntimeError.make(error, doing: "start container `\(container.id)`")
        }
    }

    static func reason(text: String) -> Reason {
        let lower = text.lowercased()
        let detail = RuntimeError.shortened(cleaned(text))
        if RuntimeError.isNoSpace(text) {
            return Reason(
                .noSpace, "no space left on the node's disk: \(detail)",
                hint: "remove unused images (`hivemind image rm`) or grow the disk")
        }
        // Mounts first: their text also ends in "no such file or directory".
        if lower.contains("error mounting") || lower.contains("failed to fulfil mount request") {
            if lower.contains("no such file or directory"), let source = quoted(text, after: "mounting") {
                return Reason(
                    .mountSourceMissing, "mount source `\(source)` does not exist on the node",
                    hint: "create it there, or use a named volume")
            }
            return Reason(.startFailed, "cannot mount: \(detail)", hint: "look at the mounts of the service")
        }
        if lower.contains("failed to create shim") && lower.contains("network") && lower.contains("namespace")
            || lower.contains("lstat /run/netns") || lower.contains("open /run/netns")
        {
            return Reason(.networkFailed, "the container's network namespace is gone: \(detail)")
        }
        if let command = quoted(text, after: "exec:") {
            if lower.contains("executable file not found") || lower.contains("no such file or directory") {
                return Reason(
                    .commandNotFound, "the image has no command `\(command)`",
                    hint: "give one of the image's programs after `--`, by name in PATH or by absolute path")
            }
            if lower.contains("permission denied") || lower.contains("is a directory") {
                return Reason(
                    .commandNotExecutable, "command `\(command)` is not executable in the image",
                    hint: "it needs mode x for the container's user, and must be a file")
            }
            if lower.contains("exec format error") { return wrongFormat(command) }
        }
        if lower.contains("exec format error") { return wrongFormat("of the container") }
        if lower.contains("unable to find user") || lower.contains("no matching entries in passwd file") {
            return Reason(
                .userNotFound, "the image has no such user: \(detail)", hint: "use a number: --user 1000:1000")
        }
        if lower.contains("exec: \"") == false, lower.contains("runc"), lower.contains("executable file not found") {
            return Reason(.runtimeUnavailable, "runc is missing on the node", hint: "apt-get install runc")
        }
        return Reason(.startFailed, "the container did not start: \(detail)")
    }

    private static func wrongFormat(_ command: String) -> Reason {
        Reason(
            .commandNotExecutable, "command `\(command)` is not a program for this machine",
            hint: "the image may be for another architecture, or a script without `#!`")
    }

    /// What stands in the first quotation marks after `marker`.
    private static func quoted(_ text: String, after marker: String) -> String? {
        var index = text.startIndex
        while index < text.endIndex, !text[index...].hasPrefix(marker) { index = text.index(after: index) }
        guard index < text.endIndex else { return nil }
        let rest = text[index...]
        guard let open = rest.firstIndex(of: "\"") else { return nil }
        let tail = rest[rest.index(after: open)...]
        guard let close = tail.firstIndex(of: "\"") else { return nil }
        return String(tail[..<close])
    }

    /// Without the layers every failure goes through, which tell nobody anything.
    private static func cleaned(_ text: String) -> String {
        let noise = [
            "failed to create shim task", "OCI runtime create failed", "OCI runtime start failed", "runc create failed",
            "failed to create task for container", "unable to start container process", "unknown", "not found",
        ]
        let parts = text.split(separator: ":").map { part in
            var part = part
            while part.first == " " { part.removeFirst() }
            while part.last == " " { part.removeLast() }
            return String(part)
        }
        let kept = parts.filter { !noise.contains($0) && !$0.isEmpty }
        return kept.isEmpty ? text : kept.joined(separator: ": ")
    }
}
