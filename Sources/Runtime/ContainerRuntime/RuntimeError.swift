// SPDX-License-Identifier: Apache-2.0
public import GRPCCore
public import Model

/// What this room throws: a Reason, and the gRPC code when containerd refused.
public struct RuntimeError: ReasonError, Sendable {
    public var reason: Reason
    /// Callers decide idempotence on this, never on text: containerd's texts differ by version.
    public var status: RPCError.Code?

    public init(_ code: Reason.Code, _ message: String, hint: String? = nil, status: RPCError.Code? = nil) {
        reason = Reason(code, message, hint: hint)
        self.status = status
    }

    public init(_ reason: Reason) { self.reason = reason }

    /// What a failed call means.
    /// - Parameter doing: what was tried, to stand after "cannot": ``start container `x` ``.
    /// - Returns: `CancellationError` when the call ended because its caller was cancelled: grpc-swift hides that in
    ///   the cause. A `RuntimeError` otherwise.
    public static func make(_ error: any Error, doing: String) -> any Error {
        if error is CancellationError { return error }
        if error is any ReasonError { return error }
        guard let error = error as? RPCError else {
            return RuntimeError(.internal, "cannot \(doing): \(error)")
        }
        if isCancellation(error) { return CancellationError() }
        let detail = shortened(error.message)
        switch error.code {
        case .unavailable:
            return RuntimeError(
                .runtimeUnavailable, "cannot \(doing): containerd does not answer",
                hint: "it is started again on its own; its log is containerd/containerd.log in the data directory",
                status: error.code)
        case .deadlineExceeded:
            return RuntimeError(
                .deadlineExceeded, "cannot \(doing): containerd did not answer in time",
                hint: "look at the load of this node",
                status: error.code)
        case .resourceExhausted:
            return RuntimeError(
                detail.contains("no space left") ? .noSpace : .internal, "cannot \(doing): \(detail)",
                status: error.code)
        default:
            if isNoSpace(error.message) {
                return RuntimeError(
                    .noSpace, "cannot \(doing): no space left on the node's disk",
                    hint: "remove unused images (`hivemind image rm`) or grow the disk", status: error.code)
            }
            return RuntimeError(.internal, "cannot \(doing): \(detail)", status: error.code)
        }
    }

    /// True when the call ended because the task that made it was cancelled.
    static func isCancellation(_ error: RPCError) -> Bool {
        var cause: (any Error)? = error.cause
        for _ in 0..<8 {
            if cause is CancellationError { return true }
            guard let next = cause as? RPCError else { return false }
            cause = next.cause
        }
        return false
    }

    static func isNoSpace(_ text: String) -> Bool {
        let text = text.lowercased()
        return text.contains("no space left on device") || text.contains("disk quota exceeded")
    }

    /// One line of at most 400 characters.
    static func shortened(_ text: String) -> String {
        let line = text.split(whereSeparator: \.isNewline).joined(separator: " ")
        return line.count <= 400 ? line : "\(line.prefix(396)) …"
    }
}

/// Runs a call to containerd and explains its failure.
func explaining<Result>(
    _ doing: @autoclosure () -> String, _ body: () async throws -> Result
) async throws -> Result {
    do {
        return try await body()
    } catch {
        throw RuntimeError.make(error, doing: doing())
    }
}
