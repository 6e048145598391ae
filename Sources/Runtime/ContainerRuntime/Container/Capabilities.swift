// SPDX-License-Identifier: Apache-2.0
internal import Model

/// The capabilities a container's processes have.
enum Capabilities {
    /// What Docker grants when nothing is said.
    static let standard = [
        "CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_MKNOD",
        "CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID",
        "CAP_SYS_CHROOT",
    ]

    /// By number, as the kernel counts them (linux/capability.h).
    static let known = [
        "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID",
        "CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST",
        "CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO",
        "CAP_SYS_CHROOT", "CAP_SYS_PTRACE", "CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE",
        "CAP_SYS_RESOURCE", "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE",
        "CAP_AUDIT_CONTROL", "CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM",
        "CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
    ]

    /// The standard set changed as the service asks; names with or without `CAP_`, in any case, `ALL` for every one.
    ///
    /// Drop `ALL` clears the set before anything is added, as in Docker; else what is both added and dropped is dropped.
    /// - Parameter available: what this daemon itself may hand on; `ALL` means these.
    /// - Returns: sorted names.
    /// - Throws: `startFailed` for a name the kernel does not know or one this node cannot grant.
    static func granted(add: [String], drop: [String], available: Set<String>) throws(RuntimeError) -> [String] {
        var set = Set(standard).intersection(available)
        let dropped = try names(drop)
        let added = try names(add)
        if dropped.contains("ALL") { set = [] }
        if added.contains("ALL") { set.formUnion(available) }
        for name in added where name != "ALL" {
            guard available.contains(name) else {
                throw RuntimeError(
                    .startFailed, "capability `\(name)` cannot be granted: this node's daemon does not have it",
                    hint: "run the daemon with it, or leave it out of --cap-add")
            }
            set.insert(name)
        }
        return set.subtracting(dropped).sorted()
    }

    private static func names(_ list: [String]) throws(RuntimeError) -> Set<String> {
        var result: Set<String> = []
        for text in list {
            let upper = text.uppercased()
            let name = upper == "ALL" || upper.hasPrefix("CAP_") ? upper : "CAP_\(upper)"
            guard name == "ALL" || known.contains(name) else {
                throw RuntimeError(
                    .startFailed, "unknown capability `\(text)`",
                    hint: "names are those of capabilities(7), e.g. NET_ADMIN")
            }
            result.insert(name)
        }
        return result
    }

    /// Names of the bits of a mask as /proc/<pid>/status shows it.
    static func names(mask: UInt64) -> Set<String> {
        Set(known.enumerated().filter { mask & 1 << UInt64($0.offset) != 0 }.map(\.element))
    }
}
