// SPDX-License-Identifier: Apache-2.0
internal import FoundationEssentials
internal import Model

/// Makes the OCI document of a container from its spec, its image and this machine. Pure.
struct OCISpec {
    var container: ContainerSpec
    var image: ImageConfig
    var user: OCIDocument.User
    var host: HostFacts
    /// Directory with the files `TaskFiles` wrote for this container.
    var filesDirectory: String
    /// Name of the node: several nodes on one machine share the cgroup tree.
    var node: String

    private static let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

    func document() throws(RuntimeError) -> OCIDocument {
        let service = container.service
        let capabilities = try Capabilities.granted(
            add: service.capabilitiesAdd, drop: service.capabilitiesDrop, available: host.capabilities)
        return OCIDocument(
            process: OCIDocument.Process(
                user: user,
                args: try arguments(),
                env: environment(),
                cwd: try workingDirectory(),
                capabilities: .init(bounding: capabilities, effective: capabilities, permitted: capabilities),
                rlimits: [
                    .init(
                        type: "RLIMIT_NOFILE", hard: host.openFilesMax,
                        soft: min(host.openFilesMax, HostFacts.openFilesSoft))
                ],
                // Never below this process's own: that needs a capability, and runc's error would name something else.
                oomScoreAdj: max(0, host.oomScoreAdjustment)
            ),
            root: .init(readonly: service.readOnlyRoot),
            hostname: container.hostname,
            mounts: mounts(),
            linux: OCIDocument.Linux(
                cgroupsPath: Self.cgroupPath(node: node, container: container.id),
                namespaces: namespaces(),
                resources: resources(),
                maskedPaths: Self.maskedPaths,
                readonlyPaths: Self.readonlyPaths,
                // As in Docker: a process that is not root may listen on port 80 and ping.
                sysctl: [
                    "net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "0 2147483647",
                ],
                seccomp: SeccompProfile.make(capabilities: Set(capabilities))
            )
        )
    }

    static func cgroupPath(node: String, container: ContainerID) -> String { "/hivemind/\(node)/\(container.raw)" }

    // MARK: Process

    /// Docker's rules: an entrypoint of the service takes the place of the image's and drops the image's command; a
    /// command of the service takes the place of the image's.
    private func arguments() throws(RuntimeError) -> [String] {
        let service = container.service
        let entrypoint = service.entrypoint ?? image.entrypoint
        let command = service.command ?? (service.entrypoint == nil ? image.command : [])
        let arguments = entrypoint + command
        guard !arguments.isEmpty else {
            throw RuntimeError(
                .commandNotFound, "neither image `\(service.image)` nor service `\(service.name)` names a command",
                hint: "give one after `--`")
        }
        return arguments
    }

    /// PATH and HOSTNAME, then the image's, then the service's; the last of a name wins, its first place stays.
    private func environment() -> [String] {
        var names: [String] = []
        var lines: [String: String] = [:]
        func set(_ line: String) {
            let name = String(line.prefix { $0 != "=" })
            if lines.updateValue(line, forKey: name) == nil { names.append(name) }
        }
        set(Self.path)
        set("HOSTNAME=\(container.hostname)")
        image.environment.forEach(set)
        for (name, value) in container.service.environment.sorted(by: { $0.key < $1.key }) { set("\(name)=\(value)") }
        return names.compactMap { lines[$0] }
    }

    /// runc makes it when the image does not have it.
    private func workingDirectory() throws(RuntimeError) -> String {
        let path = container.service.workingDirectory ?? image.workingDirectory
        if path.isEmpty { return "/" }
        guard path.hasPrefix("/") else {
            throw RuntimeError(
                .startFailed, "working directory `\(path)` is not absolute", hint: "start it with `/`")
        }
        return path
    }

    // MARK: Mounts

    private func mounts() -> [OCIDocument.Mount] {
        var mounts = Self.kernelMounts
        mounts.append(
            .init(
                destination: "/sys/fs/cgroup", type: "cgroup", source: "cgroup",
                options: ["nosuid", "noexec", "nodev", "ro"]))
        for name in TaskFiles.names {
            mounts.append(
                .init(
                    destination: "/etc/\(name)", type: "bind", source: "\(filesDirectory)/\(name)",
                    options: ["rbind", "rprivate", "rw"]))
        }
        // Parents before children; the container's own take the place of ours.
        let own = container.mounts.sorted { left, right in
            let (a, b) = (Self.depth(left.target), Self.depth(right.target))
            return a == b ? left.target < right.target : a < b
        }
        for mount in own {
            mounts.removeAll { $0.destination == Self.normalized(mount.target) }
            mounts.append(Self.entry(mount))
        }
        return mounts
    }

    private static func entry(_ mount: ContainerMount) -> OCIDocument.Mount {
        let access = mount.readOnly ? "ro" : "rw"
        switch mount.kind {
        case .bind(let source):
            return .init(
                destination: normalized(mount.target), type: "bind", source: source,
                options: ["rbind", "rprivate", access])
        case .tmpfs(let size):
            var options = ["nosuid", "nodev", "noexec", "mode=1777", access]
            if let size { options.append("size=\(size)") }
            return .init(destination: normalized(mount.target), type: "tmpfs", source: "tmpfs", options: options)
        }
    }

    static func normalized(_ path: String) -> String {
        "/" + path.split(separator: "/").filter { $0 != "." }.joined(separator: "/")
    }

    private static func depth(_ path: String) -> Int { path.split(separator: "/").count }

    private static let kernelMounts: [OCIDocument.Mount] = [
        .init(destination: "/proc", type: "proc", source: "proc", options: ["nosuid", "noexec", "nodev"]),
        .init(
            destination: "/dev", type: "tmpfs", source: "tmpfs",
            options: ["nosuid", "strictatime", "mode=755", "size=65536k"]),
        .init(
            destination: "/dev/pts", type: "devpts", source: "devpts",
            options: ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
        .init(
            destination: "/dev/shm", type: "tmpfs", source: "shm",
            options: ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
        .init(destination: "/dev/mqueue", type: "mqueue", source: "mqueue", options: ["nosuid", "noexec", "nodev"]),
        .init(destination: "/sys", type: "sysfs", source: "sysfs", options: ["nosuid", "noexec", "nodev", "ro"]),
    ]

    private static let maskedPaths = [
        "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
        "/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats",
        "/sys/devices/virtual/powercap", "/sys/firmware",
    ]
    private static let readonlyPaths = [
        "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger",
    ]

    // MARK: Isolation and limits

    private func namespaces() -> [OCIDocument.Namespace] {
        var list = ["ipc", "mount", "pid", "uts"].map { OCIDocument.Namespace(type: $0) }
        list.append(.init(type: "network", path: container.networkNamespace))
        // As in Docker: the v2 tree is hidden behind a namespace, v1 trees are shown read-only.
        if host.isUnifiedCgroup { list.append(.init(type: "cgroup")) }
        return list
    }

    private func resources() -> OCIDocument.Resources {
        let limits = container.service.resources
        var result = OCIDocument.Resources(devices: Self.devices)
        if let bytes = limits.memoryBytes, bytes > 0 {
            // Swap counts memory and swap together: equal values mean no swap.
            result.memory = .init(limit: bytes, swap: host.limitsSwap ? bytes : nil)
        }
        if let millis = limits.cpuMillis, millis > 0 {
            // The kernel refuses a quota below 1 ms and shares below 2.
            result.cpu = .init(
                shares: UInt64(max(2, millis * 1024 / 1000)), quota: Int64(max(1000, millis * 100)), period: 100_000)
        }
        if limits.pidsMax > 0 { result.pids = .init(limit: limits.pidsMax) }
        return result
    }

    /// Nothing but null, full, zero, random, urandom, tty, console and pseudo terminals; nodes may be made.
    private static let devices: [OCIDocument.Resources.Device] = {
        typealias Device = OCIDocument.Resources.Device
        var list = [Device(allow: false, access: "rwm")]
        for type in ["c", "b"] { list.append(Device(allow: true, type: type, access: "m")) }
        for (major, minor) in [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2)] as [(Int64, Int64)] {
            list.append(Device(allow: true, type: "c", major: major, minor: minor, access: "rwm"))
        }
        list.append(Device(allow: true, type: "c", major: 136, access: "rwm"))
        return list
    }()
}
