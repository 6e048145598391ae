// SPDX-License-Identifier: Apache-2.0

/// What the kernel counted in a container's cgroup, which stands until the container's task is deleted. It answers when
/// the event was missed because the daemon was away.
enum OutOfMemory {
    static func wasCounted(cgroup: String, unified: Bool) -> Bool {
        let path =
            unified
            ? "/sys/fs/cgroup\(cgroup)/memory.events" : "/sys/fs/cgroup/memory\(cgroup)/memory.oom_control"
        return HostFacts.text(path).map(hasKill) ?? false
    }

    /// Both files have lines `key number`.
    static func hasKill(_ text: String) -> Bool {
        for line in text.split(separator: "\n") {
            let parts = line.split(separator: " ")
            if parts.count == 2, parts[0] == "oom_kill", let count = Int(parts[1]) { return count > 0 }
        }
        return false
    }
}
