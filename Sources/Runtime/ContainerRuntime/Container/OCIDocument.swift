// SPDX-License-Identifier: Apache-2.0

/// The OCI runtime specification 1.0.2, as far as we fill it in. Member names are the document's.
struct OCIDocument: Encodable, Equatable {
    var ociVersion = "1.0.2"
    var process: Process
    var root: Root
    var hostname: String
    var mounts: [Mount]
    var linux: Linux

    struct Root: Encodable, Equatable {
        var path = "rootfs"
        var readonly: Bool
    }

    struct Mount: Encodable, Equatable {
        var destination: String
        var type: String
        var source: String
        var options: [String]
    }

    struct Process: Encodable, Equatable {
        var terminal = false
        var user: User
        var args: [String]
        var env: [String]
        var cwd: String
        var capabilities: Capabilities
        var rlimits: [ResourceLimit]
        var noNewPrivileges = true
        var oomScoreAdj: Int
    }

    struct User: Encodable, Equatable {
        var uid: UInt32
        var gid: UInt32
        var additionalGids: [UInt32]
    }

    struct Capabilities: Encodable, Equatable {
        var bounding: [String]
        var effective: [String]
        var permitted: [String]
    }

    struct ResourceLimit: Encodable, Equatable {
        var type: String
        var hard: UInt64
        var soft: UInt64
    }

    struct Linux: Encodable, Equatable {
        var cgroupsPath: String
        var namespaces: [Namespace]
        var resources: Resources
        var maskedPaths: [String]
        var readonlyPaths: [String]
        var sysctl: [String: String]
        var seccomp: Seccomp?
    }

    struct Namespace: Encodable, Equatable {
        var type: String
        var path: String?
    }

    struct Resources: Encodable, Equatable {
        struct Memory: Encodable, Equatable {
            var limit: Int64
            var swap: Int64?
        }
        struct CPU: Encodable, Equatable {
            var shares: UInt64
            var quota: Int64
            var period: UInt64
        }
        struct PIDs: Encodable, Equatable { var limit: Int64 }
        struct Device: Encodable, Equatable {
            var allow: Bool
            var type: String?
            var major: Int64?
            var minor: Int64?
            var access: String
        }
        var devices: [Device]
        var memory: Memory?
        var cpu: CPU?
        var pids: PIDs?
    }

    struct Seccomp: Encodable, Equatable {
        struct Argument: Encodable, Equatable {
            var index: Int
            var value: UInt64
            var valueTwo: UInt64?
            var op: String
        }
        struct Rule: Encodable, Equatable {
            var names: [String]
            var action: String
            var errnoRet: Int?
            var args: [Argument]?
        }
        var defaultAction: String
        var defaultErrnoRet: Int
        var architectures: [String]
        var syscalls: [Rule]
    }
}
