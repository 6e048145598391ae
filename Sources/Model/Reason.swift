// SPDX-License-Identifier: Apache-2.0

/// Machine-readable why-not: why a task does not run, why a deploy failed, why a request was refused.
///
/// `code` is for programs and comes from a closed list; `message` names the object and what failed; `hint` says what
/// to do next.
public struct Reason: Hashable, Codable, Sendable, CustomStringConvertible {
    public enum Code: String, Codable, Sendable, CaseIterable {
        // Images
        case imageNotFound = "image_not_found"
        case imageInvalid = "image_invalid"
        case platformUnavailable = "platform_unavailable"
        case registryUnreachable = "registry_unreachable"
        case registryDenied = "registry_denied"
        case digestMismatch = "digest_mismatch"
        // Containers
        case commandNotFound = "command_not_found"
        case commandNotExecutable = "command_not_executable"
        case userNotFound = "user_not_found"
        case startFailed = "start_failed"
        case exited = "exited"
        case killed = "killed"
        case outOfMemory = "out_of_memory"
        case crashLoop = "crash_loop"
        case stopped = "stopped"
        case replaced = "replaced"
        case completed = "completed"
        // Placement and networking
        case addressExhausted = "address_exhausted"
        case portInUse = "port_in_use"
        case networkFailed = "network_failed"
        case noNode = "no_node"
        case nodeLost = "node_lost"
        case nodeDown = "node_down"
        case nodeCordoned = "node_cordoned"
        case nodeDrained = "node_drained"
        case volumeElsewhere = "volume_elsewhere"
        case constraintUnmet = "constraint_unmet"
        case nodeTainted = "node_tainted"
        case replicasPerNode = "replicas_per_node"
        case cpuShort = "cpu_short"
        case memoryShort = "memory_short"
        // Volumes
        case volumeFailed = "volume_failed"
        case mountSourceMissing = "mount_source_missing"
        // Runtime and rollout
        case runtimeUnavailable = "runtime_unavailable"
        case deadlineExceeded = "deadline_exceeded"
        case noSpace = "no_space"
        case rolledBack = "rolled_back"
        case waiting = "waiting"
        case `internal` = "internal"

        /// Trying the same again cannot help: a deploy that meets it ends at once.
        public var isFinal: Bool {
            switch self {
            case .imageNotFound, .imageInvalid, .platformUnavailable, .registryDenied, .digestMismatch,
                .commandNotFound, .commandNotExecutable, .userNotFound, .mountSourceMissing:
                true
            default: false
            }
        }
    }

    public var code: Code
    public var message: String
    public var hint: String?

    public init(_ code: Code, _ message: String, hint: String? = nil) {
        self.code = code
        self.message = message
        self.hint = hint
    }

    public var description: String { hint.map { "\(message)\nhint: \($0)" } ?? message }
}

/// An error of an effect room that can be shown to a person and kept as data.
public protocol ReasonError: Error, CustomStringConvertible {
    var reason: Reason { get }
}

extension ReasonError {
    public var description: String { reason.description }
}

/// Turns whatever an effect threw into a Reason; an error no room classified becomes `internal` with its text.
public func reason(for error: any Error) -> Reason {
    if let error = error as? any ReasonError { return error.reason }
    return Reason(.internal, "unexpected error: \(error)")
}
