// SPDX-License-Identifier: Apache-2.0

// The rules of each field of a service. They add to the faults and go on, so that one answer tells everything.

extension Validation {
    /// - Parameter path: prefix of the field names in faults, empty for a service by itself.
    static func normalised(_ spec: ServiceSpec, _ path: String, _ faults: inout SpecFaults) -> ServiceSpec {
        var spec = spec
        func field(_ name: String) -> String { path.isEmpty ? name : "\(path).\(name)" }

        if let fault = labelFault(spec.name, max: 40) {
            faults.add(
                field("name"), "\(shown(spec.name)) \(fault)",
                hint: "use 1 to 40 of a-z, 0-9 and -, starting and ending with a letter or digit")
        }
        if let fault = imageFault(spec.image) { faults.add(field("image"), fault) }
        if let digest = spec.imageDigest, !isDigest(digest) {
            faults.add(field("image_digest"), "\(shown(digest)) is not `sha256:` and 64 hex digits")
        }
        if !(0...replicasMax).contains(spec.replicas) {
            faults.add(field("replicas"), "\(spec.replicas) is not in 0...\(replicasMax)")
        }
        if spec.isGlobal {
            if spec.replicas != 1 {
                faults.add(
                    field("replicas"), "\(spec.replicas) for a global service, which has one task on every node",
                    hint: "leave replicas out, or the mode")
            }
            for case .volume(let name) in spec.mounts.map(\.source) {
                faults.add(
                    field("mounts"), "volume \(shown(name)) lies on one node, a global service runs on every one",
                    hint: "mount a path of the nodes, or leave the mode out")
            }
        }
        if spec.mode == .replicated { spec.mode = nil }
        checkArguments(spec.entrypoint, field("entrypoint"), &faults)
        checkArguments(spec.command, field("command"), &faults)
        checkPairs(spec.environment, field("environment"), valueBytesMax: 128 << 10, &faults)
        checkPairs(spec.labels, field("labels"), valueBytesMax: 4096, &faults)
        if let user = spec.user, let fault = userFault(user) { faults.add(field("user"), fault) }
        if let directory = spec.workingDirectory {
            spec.workingDirectory = absolute(directory, field("working_directory"), &faults)
        }
        if let hostname = spec.hostname, let fault = hostnameFault(hostname) { faults.add(field("hostname"), fault) }
        spec.mounts = mounts(spec.mounts, field("mounts"), &faults)
        checkPorts(spec.ports, field("ports"), &faults)
        spec.resources = resources(spec.resources, field("resources"), &faults)
        spec.placement = placement(spec.placement, field("placement"), &faults)
        spec.capabilitiesAdd = capabilities(spec.capabilitiesAdd, field("capabilities_add"), &faults)
        spec.capabilitiesDrop = capabilities(spec.capabilitiesDrop, field("capabilities_drop"), &faults)
        if let text = spec.stopSignal {
            if let signal = SignalName.normalised(text) {
                spec.stopSignal = signal
            } else {
                faults.add(
                    field("stop_signal"), "\(shown(text)) is no signal", hint: "use a name like SIGTERM or SIGQUIT")
            }
        }
        if !(0...stopTimeoutMillisecondsMax).contains(spec.stopTimeoutMilliseconds) {
            faults.add(
                field("stop_timeout_milliseconds"),
                "\(spec.stopTimeoutMilliseconds) is not in 0...\(stopTimeoutMillisecondsMax)")
        }
        return spec
    }

    /// Only what no registry could mean; the runtime parses it fully.
    static func imageFault(_ image: String) -> String? {
        if image.isEmpty { return "is empty" }
        if image.utf8.count > 512 { return "has \(image.utf8.count) characters, more than 512" }
        if image.unicodeScalars.contains(where: { $0.properties.isWhitespace || isControl($0) }) {
            return "\(shown(image)) contains white space"
        }
        return image.hasPrefix("-") ? "\(shown(image)) starts with `-`" : nil
    }

    private static func isDigest(_ text: String) -> Bool {
        guard text.hasPrefix("sha256:") else { return false }
        let hex = text.utf8.dropFirst(7)
        return hex.count == 64
            && hex.allSatisfy { (48...57).contains($0) || (97...102).contains($0) }
    }

    private static func checkArguments(_ arguments: [String]?, _ field: String, _ faults: inout SpecFaults) {
        guard let arguments else { return }
        if arguments.contains(where: { $0.unicodeScalars.contains("\0") }) {
            faults.add(field, "contains a NUL character")
        }
        let bytes = arguments.reduce(0) { $0 + $1.utf8.count + 1 }
        // Linux refuses a single argument above 128 KiB and all of them above a quarter of the stack.
        if bytes > 128 << 10 { faults.add(field, "has \(bytes) bytes, more than \(128 << 10)") }
        if let first = arguments.first, first.isEmpty { faults.add(field, "starts with an empty word") }
    }

    private static func checkPairs(
        _ pairs: [String: String], _ field: String, valueBytesMax: Int, _ faults: inout SpecFaults
    ) {
        if pairs.count > 1000 { faults.add(field, "has \(pairs.count) entries, more than 1000") }
        for (key, value) in pairs.sorted(by: { $0.key < $1.key }).prefix(1000) {
            if key.isEmpty {
                faults.add(field, "has an empty key")
            } else if key.utf8.count > 256 {
                faults.add(field, "key \(shown(key)) has \(key.utf8.count) characters, more than 256")
            } else if key.unicodeScalars.contains(where: { $0 == "=" || $0.properties.isWhitespace || isControl($0) }) {
                faults.add(field, "key \(shown(key)) contains `=`, white space or a control character")
            }
            if value.unicodeScalars.contains("\0") {
                faults.add(field, "the value of \(shown(key)) contains a NUL character")
            } else if value.utf8.count > valueBytesMax {
                faults.add(
                    field, "the value of \(shown(key)) has \(value.utf8.count) bytes, more than \(valueBytesMax)")
            }
        }
    }

    /// `name`, `uid`, and either with `:group`.
    private static func userFault(_ user: String) -> String? {
        let parts = user.split(separator: ":", omittingEmptySubsequences: false)
        let bad = user.unicodeScalars.contains { $0.properties.isWhitespace || isControl($0) || $0 == "/" }
        if bad || user.utf8.count > 100 || parts.count > 2 || parts.contains("") {
            return "\(shown(user)) is not USER, UID, USER:GROUP or UID:GID"
        }
        if let part = parts.first(where: { Int64($0) != nil && UInt32($0) == nil }) {
            return "\(shown(String(part))) is no user or group number"
        }
        return nil
    }

    private static func hostnameFault(_ text: String) -> String? {
        if text.isEmpty || text.utf8.count > 63 { return "\(shown(text)) does not have 1 to 63 characters" }
        for label in text.split(separator: ".", omittingEmptySubsequences: false) {
            if let fault = labelFault(label.lowercased(), max: 63) {
                return "\(shown(text)): \(shown(String(label))) \(fault)"
            }
        }
        return nil
    }

    /// `path` without trailing slashes; a fault when it is not absolute or has `.`, `..` or empty parts.
    private static func absolute(_ path: String, _ field: String, _ faults: inout SpecFaults) -> String {
        var clean = Substring(path)
        while clean.count > 1, clean.hasSuffix("/") { clean.removeLast() }
        if !path.hasPrefix("/") {
            faults.add(field, "\(shown(path)) is not absolute", hint: "start the path with `/`")
        } else if path.utf8.count > 4000 || path.unicodeScalars.contains(where: isControl) {
            faults.add(field, "\(shown(path)) is longer than 4000 bytes or has control characters")
        } else if clean != "/",
            clean.dropFirst().split(separator: "/", omittingEmptySubsequences: false)
                .contains(where: { $0.isEmpty || $0 == "." || $0 == ".." })
        {
            faults.add(field, "\(shown(path)) contains `//`, `.` or `..`")
        }
        return String(clean)
    }

    private static func mounts(_ mounts: [MountSpec], _ field: String, _ faults: inout SpecFaults) -> [MountSpec] {
        if mounts.count > 100 { faults.add(field, "has \(mounts.count) entries, more than 100") }
        var targets: Set<String> = []
        var result: [MountSpec] = []
        for mount in mounts.prefix(100) {
            var mount = mount
            mount.target = absolute(mount.target, field, &faults)
            if mount.target == "/" || mount.target == "/proc" || mount.target.hasPrefix("/proc/") {
                faults.add(field, "nothing can be mounted at \(shown(mount.target))")
            }
            if !targets.insert(mount.target).inserted {
                faults.add(field, "two mounts have the target \(shown(mount.target))")
            }
            switch mount.source {
            case .volume(let name):
                if let fault = labelFault(name, max: 40) {
                    faults.add(
                        field, "volume name \(shown(name)) \(fault)",
                        hint: "name a volume with a-z, 0-9 and -, or give an absolute path of the node")
                }
            case .bind(let source):
                mount.source = .bind(absolute(source, field, &faults))
            case .tmpfs(let size):
                if let size, !(4096...(1 << 50)).contains(size) {
                    faults.add(field, "tmpfs size \(size) at \(shown(mount.target)) is not in 4096...\(1 << 50)")
                }
            }
            result.append(mount)
        }
        return result
    }

    private static func checkPorts(_ ports: [PortSpec], _ field: String, _ faults: inout SpecFaults) {
        if ports.count > 200 { faults.add(field, "has \(ports.count) entries, more than 200") }
        var published: Set<String> = []
        for port in ports.prefix(200) {
            if port.containerPort == 0 || port.hostPort == 0 {
                faults.add(field, "`\(port)` has a port that is not in 1...65535")
            }
            if port.mode == .host, port.hostPort == nil {
                faults.add(field, "`\(port)` in mode host names no port of the node")
            }
            let place = port.hostPort.map(String.init) ?? "any:\(port.containerPort)"
            if !published.insert("\(place)/\(port.protocol.rawValue)").inserted {
                faults.add(field, "`\(port)` is published twice")
            }
        }
    }

    private static func resources(_ resources: Resources, _ field: String, _ faults: inout SpecFaults) -> Resources {
        var resources = resources
        // Zero means no limit; it is kept as nil so that the two are one spec.
        if resources.cpuMillis == 0 { resources.cpuMillis = nil }
        if resources.memoryBytes == 0 { resources.memoryBytes = nil }
        if resources.reservedCpuMillis == 0 { resources.reservedCpuMillis = nil }
        if resources.reservedMemoryBytes == 0 { resources.reservedMemoryBytes = nil }
        if let cpu = resources.reservedCpuMillis {
            let most = resources.cpuMillis ?? 1_024_000
            if cpu < 0 || cpu > most { faults.add("\(field).reserved_cpu_millis", "\(cpu) is not in 0...\(most)") }
        }
        if let memory = resources.reservedMemoryBytes {
            let most = resources.memoryBytes ?? 1 << 50
            if memory < 0 || memory > most {
                faults.add("\(field).reserved_memory_bytes", "\(memory) is not in 0...\(most)")
            }
        }
        if let cpu = resources.cpuMillis, !(10...1_024_000).contains(cpu) {
            faults.add("\(field).cpu_millis", "\(cpu) is not in 10...1024000", hint: "0.5 of a core is 500")
        }
        if let memory = resources.memoryBytes, !(memoryBytesMin...(1 << 50)).contains(memory) {
            faults.add(
                "\(field).memory_bytes", "\(memory) is not in \(memoryBytesMin)...\(Int64(1) << 50)",
                hint: "no program starts with less than 4 MiB")
        }
        if !(1...4_194_304).contains(resources.pidsMax) {
            faults.add("\(field).pids_max", "\(resources.pidsMax) is not in 1...4194304")
        }
        return resources
    }

    /// Sorted, each once, `CAP_` in front; `ALL` stays as it is.
    private static func capabilities(_ names: [String], _ field: String, _ faults: inout SpecFaults) -> [String] {
        var result: Set<String> = []
        for name in names {
            let upper = name.uppercased()
            let bare = upper.hasPrefix("CAP_") ? String(upper.dropFirst(4)) : upper
            if bare == "ALL" {
                result.insert("ALL")
            } else if CapabilityName.all.contains(bare) {
                result.insert("CAP_\(bare)")
            } else {
                faults.add(field, "\(shown(name)) is no capability", hint: "names are like NET_ADMIN; ALL means all")
            }
        }
        return result.sorted()
    }
}

/// Linux capabilities, `capabilities(7)` of kernel 6.x, without `CAP_`.
enum CapabilityName {
    static let all: Set<String> = [
        "AUDIT_CONTROL", "AUDIT_READ", "AUDIT_WRITE", "BLOCK_SUSPEND", "BPF", "CHECKPOINT_RESTORE", "CHOWN",
        "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "IPC_LOCK", "IPC_OWNER", "KILL", "LEASE",
        "LINUX_IMMUTABLE", "MAC_ADMIN", "MAC_OVERRIDE", "MKNOD", "NET_ADMIN", "NET_BIND_SERVICE", "NET_BROADCAST",
        "NET_RAW", "PERFMON", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYSLOG", "SYS_ADMIN", "SYS_BOOT",
        "SYS_CHROOT", "SYS_MODULE", "SYS_NICE", "SYS_PACCT", "SYS_PTRACE", "SYS_RAWIO", "SYS_RESOURCE", "SYS_TIME",
        "SYS_TTY_CONFIG", "WAKE_ALARM",
    ]
}

/// Signals by name, numbered as on x86-64 and arm64.
public enum SignalName {
    private static let numbers: [String: Int32] = [
        "SIGHUP": 1, "SIGINT": 2, "SIGQUIT": 3, "SIGILL": 4, "SIGTRAP": 5, "SIGABRT": 6, "SIGBUS": 7, "SIGFPE": 8,
        "SIGKILL": 9, "SIGUSR1": 10, "SIGSEGV": 11, "SIGUSR2": 12, "SIGPIPE": 13, "SIGALRM": 14, "SIGTERM": 15,
        "SIGSTKFLT": 16, "SIGCHLD": 17, "SIGCONT": 18, "SIGSTOP": 19, "SIGTSTP": 20, "SIGTTIN": 21, "SIGTTOU": 22,
        "SIGURG": 23, "SIGXCPU": 24, "SIGXFSZ": 25, "SIGVTALRM": 26, "SIGPROF": 27, "SIGWINCH": 28, "SIGIO": 29,
        "SIGPWR": 30, "SIGSYS": 31,
    ]

    /// `sigterm`, `TERM`, `15` and `SIGTERM` are all `SIGTERM`; real-time signals are `SIGRTMIN+n`, n in 0...30.
    /// Nil when it is no signal.
    public static func normalised(_ text: String) -> String? {
        if let number = Int32(text) { return numbers.first { $0.value == number }?.key }
        let upper = text.uppercased()
        let name = upper.hasPrefix("SIG") ? upper : "SIG\(upper)"
        return self.number(name) == nil ? nil : name
    }

    /// Number of a normalised name, or nil.
    public static func number(_ name: String) -> Int32? {
        if let number = numbers[name] { return number }
        guard name.hasPrefix("SIGRTMIN") else { return nil }
        let rest = name.dropFirst(8)
        if rest.isEmpty { return 34 }
        // 34 is the first one glibc leaves to programs.
        guard rest.hasPrefix("+"), let offset = Int32(rest.dropFirst()), (0...30).contains(offset) else { return nil }
        return 34 + offset
    }
}
