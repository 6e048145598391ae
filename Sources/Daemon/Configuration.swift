// SPDX-License-Identifier: Apache-2.0
internal import FoundationEssentials
internal import Glibc
public import Model

/// How one daemon is to run. The CLI fills it from flags, environment and defaults, in that order.
public struct DaemonConfiguration: Hashable, Sendable {
    public enum RuntimeKind: String, Sendable, CaseIterable { case containerd, simulated }

    /// State, logs, volumes and the private containerd live below it.
    public var dataDirectory: String
    public var socketPath: String
    /// Nil starts a private containerd.
    public var containerdAddress: String?
    public var runtime: RuntimeKind
    /// File that lists the members of a cluster and this node's certificate; nil for a node alone.
    public var peersFile: String?
    /// Nil takes the host's name. A node keeps the name it was first started with.
    public var nodeName: String?
    /// trace, debug, info, notice, warning, error or critical.
    public var logLevel: String
    /// Between two comparisons of the members' whole states; at least a second.
    public var compareInterval: Duration
    /// Between two snapshots of the state that are kept for people; at least a second. Nil: none are taken.
    public var snapshotInterval: Duration?
    /// Used when the data directory is new.
    public var ranges: AddressRanges

    public static let standardDataDirectory = "/var/lib/hivemind"
    public static let standardSocketPath = "/run/hivemind/hivemind.sock"

    public init(
        dataDirectory: String = DaemonConfiguration.standardDataDirectory,
        socketPath: String = DaemonConfiguration.standardSocketPath,
        containerdAddress: String? = nil,
        runtime: RuntimeKind = .containerd,
        peersFile: String? = nil,
        nodeName: String? = nil,
        logLevel: String = "info",
        compareInterval: Duration = .seconds(600),
        snapshotInterval: Duration? = .seconds(86_400),
        ranges: AddressRanges = .standard
    ) {
        self.dataDirectory = dataDirectory
        self.socketPath = socketPath
        self.containerdAddress = containerdAddress
        self.runtime = runtime
        self.peersFile = peersFile
        self.nodeName = nodeName
        self.logLevel = logLevel
        self.compareInterval = compareInterval
        self.snapshotInterval = snapshotInterval
        self.ranges = ranges
    }
}

/// The daemon cannot start, or cannot go on: what, why, what to do.
public struct DaemonError: Error, Sendable, CustomStringConvertible {
    public var message: String
    public var hint: String?

    public init(_ message: String, hint: String? = nil) {
        self.message = message
        self.hint = hint
    }

    public var description: String { hint.map { "\(message)\nhint: \($0)" } ?? message }
}

public enum BuildInfo {
    public static let version = "0.1.0"
    public static let apiVersion = "v1"
}

extension DaemonConfiguration {
    /// Refuses what cannot work before anything is touched.
    func validate() throws(DaemonError) {
        guard dataDirectory.hasPrefix("/"), socketPath.hasPrefix("/") else {
            throw DaemonError("data directory and socket must be absolute paths")
        }
        guard socketPath.utf8.count <= 100 else {
            throw DaemonError(
                "socket path `\(socketPath)` has \(socketPath.utf8.count) bytes, a Unix socket takes 107",
                hint: "use a shorter --socket")
        }
        guard ranges.containers.prefix <= 24, ranges.containers.prefix >= 8, ranges.virtual.prefix <= 24,
            ranges.virtual.prefix >= 8
        else {
            throw DaemonError(
                "address ranges need a prefix of /8 to /24", hint: "for example --container-subnet 10.210.0.0/16")
        }
        guard !ranges.containers.overlaps(ranges.virtual) else {
            throw DaemonError("the ranges \(ranges.containers) and \(ranges.virtual) overlap")
        }
        guard compareInterval >= .seconds(1) else {
            throw DaemonError("states cannot be compared more often than every second", hint: "for example 10m")
        }
        guard snapshotInterval.map({ $0 >= .seconds(1) && $0 <= .seconds(366 * 86_400) }) ?? true else {
            throw DaemonError(
                "snapshots are taken between every second and once a year", hint: "for example 24h, or off")
        }
        if runtime == .containerd, geteuid() != 0 {
            throw DaemonError(
                "the daemon needs root to make namespaces, mounts and rules",
                hint: "run it as root, or try it without containers: hivemind daemon --runtime simulated")
        }
    }
}
