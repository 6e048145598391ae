// SPDX-License-Identifier: Apache-2.0
internal import CLinux
internal import CoreFoundation  // Either this or Glibc owns C structs, by the order files are compiled in.
internal import FoundationEssentials
internal import Glibc
internal import Logging
internal import Model
internal import Synchronization

/// Keeps one private containerd running below a data directory.
///
/// It lives in a session of its own and outlives the daemon; the next daemon of the same data directory adopts it. When
/// it dies it is started again, its containers go on through their shims meanwhile. Nothing is shared with a containerd
/// of the machine but the socket directory of the shims.
actor ContainerdProcess {
    private let files: ContainerdConfigFile
    private let log: Logger
    private let readyTimeout: Duration
    private var process: ProcessIdentity?
    /// Only a child can be reaped.
    private var isChild = false
    private var supervisor: Task<Void, Never>?

    static let logBytesMax: Int64 = 4 << 20
    private static let searchPath = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"]

    init(dataDirectory: String, readyTimeout: Duration = .seconds(30), log: Logger) throws(RuntimeError) {
        files = try ContainerdConfigFile(dataDirectory: dataDirectory)
        self.readyTimeout = readyTimeout
        self.log = log
    }

    nonisolated var socket: String { files.socket }
    var runningPID: Int32? { process.flatMap { $0.isRunning ? $0.pid : nil } }

    /// Adopts the containerd of this data directory or starts one, and returns when its socket accepts.
    /// - Throws: `runtimeUnavailable` when a program is missing or it is not ready within 30 s.
    func start() async throws(RuntimeError) {
        if let found = findRunning() {
            process = found
            if await waitForSocket(timeout: .seconds(10)) {
                log.info("containerd adopted", metadata: ["pid": "\(found.pid)"])
                supervise()
                return
            }
            log.warning("containerd runs but does not answer, ending it", metadata: ["pid": "\(found.pid)"])
            await end(found, politely: false)
        }
        try await launch()
        supervise()
    }

    /// Ends containerd, never a container: they live in their shims.
    func stop() async {
        supervisor?.cancel()
        await supervisor?.value
        supervisor = nil
        if let process { await end(process, politely: true) }
        process = nil
        unlink(files.pidFile)
    }

    /// Ends the watching only; containerd goes on as after a killed daemon.
    func leave() async {
        supervisor?.cancel()
        await supervisor?.value
        supervisor = nil
    }

    // MARK: Starting

    private func launch() async throws(RuntimeError) {
        let program = try Self.find("containerd", package: "containerd")
        _ = try Self.find("containerd-shim-runc-v2", package: "containerd")
        _ = try Self.find("runc", package: "runc")
        try TaskFiles.makeDirectories(files.directory)
        chmod(files.directory, 0o711)
        try TaskFiles.write(files.text, to: files.path)
        // A socket file nobody listens on would only make the wait below connect in vain.
        unlink(files.socket)
        let pid = try spawn(program)
        guard let identity = ProcessIdentity(pid: pid) else { throw died() }
        process = identity
        isChild = true
        try TaskFiles.write(identity.text, to: files.pidFile)
        guard await waitForSocket(timeout: readyTimeout) else {
            let gone = !identity.isRunning
            await end(identity, politely: false)
            process = nil
            if gone { throw died() }
            throw RuntimeError(
                .runtimeUnavailable, "containerd was not ready after \(readyTimeout)", hint: "its log is \(files.log)")
        }
        log.info("containerd started", metadata: ["pid": "\(pid)", "socket": "\(files.socket)"])
    }

    private func died() -> RuntimeError {
        let lines = (HostFacts.text(files.log) ?? "").split(separator: "\n")
        return RuntimeError(
            .runtimeUnavailable,
            "containerd ended at once: \(RuntimeError.shortened(lines.last.map(String.init) ?? "it said nothing"))",
            hint: "its log is \(files.log)")
    }

    private static func find(_ name: String, package: String) throws(RuntimeError) -> String {
        for directory in pathDirectories() where access("\(directory)/\(name)", X_OK) == 0 {
            return "\(directory)/\(name)"
        }
        throw RuntimeError(
            .runtimeUnavailable, "`\(name)` is not installed (\(package) is missing)",
            hint: "apt-get install containerd runc, or give a running one with --containerd")
    }

    private static func pathDirectories() -> [String] {
        let own = (getenv("PATH").map { String(cString: $0) } ?? "").split(separator: ":").map(String.init)
        return own + searchPath.filter { !own.contains($0) }
    }

    private func spawn(_ program: String) throws(RuntimeError) -> pid_t {
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
        posix_spawn_file_actions_addopen(&actions, 1, files.log, O_WRONLY | O_CREAT | O_APPEND, 0o640)
        posix_spawn_file_actions_adddup2(&actions, 1, 2)
        // It would hold the daemon's sockets and files open after the daemon is gone.
        hm_spawn_close_from(&actions, 3)

        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        var none = sigset_t()
        var all = sigset_t()
        sigemptyset(&none)
        sigfillset(&all)
        posix_spawnattr_setsigmask(&attributes, &none)
        posix_spawnattr_setsigdefault(&attributes, &all)
        let newSession: Int32 = 0x80  // POSIX_SPAWN_SETSID, which glibc's headers show to GNU sources only.
        posix_spawnattr_setflags(
            &attributes, Int16(newSession | Int32(POSIX_SPAWN_SETSIGMASK) | Int32(POSIX_SPAWN_SETSIGDEF)))

        // Layers are unpacked and mount points made with its umask: under the daemon's, which shuts others out, the
        // root of every container would be closed to users that are not root. posix_spawn cannot set one; a shell can.
        let shell = "/bin/sh"
        let arguments = [shell, "-c", "umask 022 && exec \"$@\"", "sh", program, "--config", files.path]
        var environment = ProcessInfo.processInfo.environment
        environment["PATH"] = Self.pathDirectories().joined(separator: ":")
        // A supervisor's notifications are not for a child.
        environment["NOTIFY_SOCKET"] = nil
        var argv = arguments.map { strdup($0) } + [nil]
        var envp = environment.map { strdup("\($0.key)=\($0.value)") } + [nil]
        defer { for pointer in argv + envp { free(pointer) } }
        var pid = pid_t()
        let status = posix_spawn(&pid, shell, &actions, &attributes, &argv, &envp)
        guard status == 0 else {
            throw RuntimeError(
                .runtimeUnavailable, "cannot start `\(program)` by `\(shell)`: \(String(cString: strerror(status)))",
                hint: "run the daemon as root")
        }
        return pid
    }

    /// Looks every few milliseconds: containerd is ready about 100 ms after its start, and all else waits for it.
    private func waitForSocket(timeout: Duration) async -> Bool {
        let deadline = ContinuousClock.now + timeout
        while ContinuousClock.now < deadline {
            if Self.accepts(files.socket) { return true }
            if let process, !process.isRunning { return false }
            try? await Task.sleep(for: .milliseconds(3))
            if Task.isCancelled { return false }
        }
        return false
    }

    static func accepts(_ path: String) -> Bool {
        let descriptor = Glibc.socket(AF_UNIX, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        guard descriptor >= 0 else { return false }
        defer { close(descriptor) }
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        let bytes = Array(path.utf8)
        guard bytes.count <= ContainerdClient.socketPathBytesMax else { return false }
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: bytes) }
        return withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size)) == 0
            }
        }
    }

    // MARK: Adopting

    /// The running containerd of this data directory: by the pid file, else by its command line, because a daemon may
    /// have been killed between starting it and writing the file.
    private func findRunning() -> ProcessIdentity? {
        if let text = HostFacts.text(files.pidFile), let known = ProcessIdentity(text: text), known.isRunning,
            isOurs(known.pid)
        {
            return known
        }
        guard let directory = opendir("/proc") else { return nil }
        defer { closedir(directory) }
        while let entry = readdir(directory) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) {
                $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            guard let pid = pid_t(name), isOurs(pid), let identity = ProcessIdentity(pid: pid) else { continue }
            return identity
        }
        return nil
    }

    private func isOurs(_ pid: pid_t) -> Bool {
        let arguments = ProcessIdentity.arguments(of: pid)
        return arguments.count == 3 && arguments[0].hasSuffix("/containerd") && arguments[1] == "--config"
            && arguments[2] == files.path
    }

    // MARK: Watching

    private func supervise() {
        supervisor = Task { await self.watch() }
    }

    private func watch() async {
        var delay = Duration.milliseconds(100)
        var startedAt = ContinuousClock.now
        while !Task.isCancelled {
            do { try await Task.sleep(for: .milliseconds(200)) } catch { return }
            boundLog()
            guard let current = process, !current.isRunning else {
                if process != nil { continue }
                return
            }
            reap(current)
            if ContinuousClock.now - startedAt > .seconds(60) { delay = .milliseconds(100) }
            log.warning(
                "containerd ended, starting it again", metadata: ["pid": "\(current.pid)", "delay": "\(delay)"])
            repeat {
                do { try await Task.sleep(for: delay) } catch { return }
                delay = min(delay * 2, .seconds(10))
                do {
                    try await launch()
                    startedAt = .now
                    break
                } catch {
                    log.error("cannot start containerd", metadata: ["error": "\(error)"])
                }
            } while !Task.isCancelled
        }
    }

    private func reap(_ identity: ProcessIdentity) {
        guard isChild else { return }
        var status: Int32 = 0
        _ = waitpid(identity.pid, &status, WNOHANG)
    }

    private func end(_ identity: ProcessIdentity, politely: Bool) async {
        if identity.isRunning { kill(identity.pid, politely ? SIGTERM : SIGKILL) }
        let deadline = ContinuousClock.now + .seconds(10)
        var killed = !politely
        while identity.isRunning {
            if ContinuousClock.now > deadline {
                if killed { break }
                kill(identity.pid, SIGKILL)
                killed = true
            }
            // Must go on when the caller was cancelled: half ended is worse.
            await Self.pause(milliseconds: 5)
        }
        reap(identity)
    }

    private static func pause(milliseconds: Int) async {
        await Task.detached { try? await Task.sleep(for: .milliseconds(milliseconds)) }.value
    }

    /// containerd appends, so its file may be cut while it writes; one older part is kept.
    private func boundLog() {
        var info = stat()
        guard stat(files.log, &info) == 0, info.st_size > Self.logBytesMax else { return }
        let old = files.log + ".1"
        guard let text = FileManager.default.contents(atPath: files.log) else { return }
        _ = FileManager.default.createFile(atPath: old, contents: text.suffix(Int(Self.logBytesMax)))
        truncate(files.log, 0)
    }
}
