// SPDX-License-Identifier: Apache-2.0
internal import CoreFoundation  // Either this or Glibc owns C structs, by the order files are compiled in.
internal import FoundationEssentials
internal import Glibc

/// What this machine and this process allow; read once at start.
struct HostFacts: Hashable, Sendable {
    /// Capabilities that may be handed on: those of the bounding set that are effective.
    var capabilities: Set<String>
    var openFilesMax: UInt64
    var oomScoreAdjustment: Int
    /// Only the v2 tree is mounted.
    var isUnifiedCgroup: Bool
    /// The kernel can limit memory and swap together.
    var limitsSwap: Bool

    /// Soft limit of open files for containers; programs that need more raise it to the hard one.
    static let openFilesSoft: UInt64 = 65_536
    static let openFilesHard: UInt64 = 524_288

    static func read() -> HostFacts {
        let status = text("/proc/self/status") ?? ""
        func mask(_ key: String) -> UInt64 {
            for line in status.split(separator: "\n") where line.hasPrefix("\(key):") {
                return UInt64(line.dropFirst(key.count + 1).filter { !$0.isWhitespace }, radix: 16) ?? 0
            }
            return 0
        }
        let capabilities = Capabilities.names(mask: mask("CapEff") & mask("CapBnd"))
        var limit = rlimit()
        let known = getrlimit(__rlimit_resource_t(7), &limit) == 0  // RLIMIT_NOFILE
        // Without the right to raise limits a container can only have what this process has.
        let hard = capabilities.contains("CAP_SYS_RESOURCE") || !known ? openFilesHard : UInt64(limit.rlim_max)
        let unified = access("/sys/fs/cgroup/cgroup.controllers", F_OK) == 0
        return HostFacts(
            capabilities: capabilities,
            openFilesMax: min(hard, openFilesHard),
            oomScoreAdjustment: Int((text("/proc/self/oom_score_adj") ?? "0").filter { !$0.isWhitespace }) ?? 0,
            isUnifiedCgroup: unified,
            limitsSwap: unified || access("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes", F_OK) == 0
        )
    }

    /// What a person should know about this node.
    var conditions: [String] {
        var list: [String] = []
        if !capabilities.contains("CAP_SYS_RESOURCE") {
            list.append("no CAP_SYS_RESOURCE: containers get at most \(openFilesMax) open files")
        }
        if !limitsSwap { list.append("the kernel does not account swap: memory limits do not cover swap") }
        return list
    }

    static func text(_ path: String) -> String? {
        // /proc files have no size, so they are read until they end.
        let file = open(path, O_RDONLY | O_CLOEXEC)
        guard file >= 0 else { return nil }
        defer { close(file) }
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 4096)
        while bytes.count < 1 << 20 {
            let count = Glibc.read(file, &chunk, chunk.count)
            if count < 0 && errno == EINTR { continue }
            if count <= 0 { break }
            bytes += chunk[0..<count]
        }
        return String(decoding: bytes, as: UTF8.self)
    }
}
