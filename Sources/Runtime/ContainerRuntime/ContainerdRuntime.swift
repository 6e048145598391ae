// SPDX-License-Identifier: Apache-2.0
internal import ContainerdAPI
internal import CoreFoundation  // Either this or Glibc owns C structs, by the order files are compiled in.
internal import FoundationEssentials
internal import GRPCCore
internal import Glibc
public import Logging
public import Model
internal import SwiftProtobuf
internal import Synchronization

public struct ContainerdRuntimeConfiguration: Sendable {
    /// Absolute; containers, logs and the private containerd live below it.
    public var dataDirectory: String
    /// Part of cgroup paths: several nodes may run on one machine.
    public var nodeName: String
    /// Socket of a running containerd; nil starts and supervises a private one.
    public var containerdAddress: String?
    /// Path of `hivemind-log`; nil takes the one beside the running program.
    public var logProgram: String?
    /// `overlayfs`, or `native` where overlays cannot be mounted.
    public var snapshotter: String
    /// `host[:port]` of registries spoken to without TLS; those of loopback need no entry.
    public var insecureRegistries: Set<String>

    public init(
        dataDirectory: String,
        nodeName: String,
        containerdAddress: String? = nil,
        logProgram: String? = nil,
        snapshotter: String = "overlayfs",
        insecureRegistries: Set<String> = []
    ) {
        self.dataDirectory = dataDirectory
        self.nodeName = nodeName
        self.containerdAddress = containerdAddress
        self.logProgram = logProgram
        self.snapshotter = snapshotter
        self.insecureRegistries = insecureRegistries
    }
}

/// `Model.Runtime` on containerd.
///
/// Everything about a container is in containerd: its record's labels say which task and attempt it is. Nothing is kept
/// here but what is cheap to find again, so a daemon that was killed goes on where it was. Public methods throw
/// `RuntimeError`, `ImageError` or `LogError`, or `CancellationError` when the caller was cancelled.
public final class ContainerdRuntime: Runtime {
    let configuration: ContainerdRuntimeConfiguration
    let client: ContainerdClient
    let images: ImageStore
    let logStore: LogStore
    let hub = EventHub()
    let host: HostFacts
    let files: TaskFiles
    let logProgram: String
    let log: Logger
    /// By top chain id: reading them needs a mount.
    let userDatabases = Mutex<[String: UserDatabase]>([:])

    private let process: ContainerdProcess?
    private let follower = Mutex<Task<Void, Never>?>(nil)

    /// Connects to the containerd it is given, or adopts or starts the private one, and returns when it answers.
    /// - Throws: `runtimeUnavailable` with what is missing, within 40 s.
    public static func start(
        _ configuration: ContainerdRuntimeConfiguration, logger: Logger = Logger(label: "hivemind.runtime")
    ) async throws -> ContainerdRuntime {
        let logProgram = try findLogProgram(configuration.logProgram)
        for directory in ["tasks", "logs", "runc"] {
            try TaskFiles.makeDirectories("\(configuration.dataDirectory)/\(directory)")
        }
        var process: ContainerdProcess?
        if configuration.containerdAddress == nil {
            let own = try ContainerdProcess(dataDirectory: configuration.dataDirectory, log: logger)
            try await own.start()
            process = own
        }
        do {
            let client = try ContainerdClient(address: configuration.containerdAddress ?? process?.socket ?? "")
            let runtime = ContainerdRuntime(configuration, client, process, logProgram, logger)
            do {
                try await runtime.begin()
                return runtime
            } catch {
                await client.shutdown()
                throw error
            }
        } catch {
            await process?.stop()
            throw error
        }
    }

    private init(
        _ configuration: ContainerdRuntimeConfiguration,
        _ client: ContainerdClient,
        _ process: ContainerdProcess?,
        _ logProgram: String,
        _ logger: Logger
    ) {
        self.configuration = configuration
        self.client = client
        self.process = process
        self.logProgram = logProgram
        log = logger
        host = HostFacts.read()
        images = ImageStore(
            client: client, insecureRegistries: configuration.insecureRegistries, snapshotter: configuration.snapshotter
        )
        logStore = LogStore(directory: "\(configuration.dataDirectory)/logs")
        files = TaskFiles(root: "\(configuration.dataDirectory)/tasks")
    }

    private func begin() async throws {
        try await explaining("reach containerd at \(client.address)") {
            var options = CallOptions.defaults
            options.waitForReady = true
            _ = try await client.unary.version.version(.init(), options: options)
        }
        try await removeOrphans()
        let stream = EventStream(
            client: client, hub: hub,
            countedOutOfMemory: { [configuration, host] id in
                OutOfMemory.wasCounted(
                    cgroup: OCISpec.cgroupPath(node: configuration.nodeName, container: id),
                    unified: host.isUnifiedCgroup)
            }, log: log)
        follower.withLock { $0 = Task { await stream.run() } }
    }

    /// Ends the conversation, the event streams and the private containerd. Containers go on.
    /// - Parameter endingContainerd: false leaves it running, as a killed daemon does; the next one adopts it.
    public func shutdown(endingContainerd: Bool = true) async {
        let task = follower.withLock { $0 }
        task?.cancel()
        await task?.value
        hub.finish()
        await client.shutdown()
        if endingContainerd { await process?.stop() } else { await process?.leave() }
    }

    /// Of the private containerd; nil when one was given or it is down.
    func containerdProcessIdentifier() async -> Int32? { await process?.runningPID }

    private static func findLogProgram(_ given: String?) throws(RuntimeError) -> String {
        var path = given ?? ""
        if given == nil {
            var buffer = [CChar](repeating: 0, count: Int(PATH_MAX) + 1)
            let count = readlink("/proc/self/exe", &buffer, Int(PATH_MAX))
            let own = String(decoding: buffer.prefix(max(0, count)).map(UInt8.init(bitPattern:)), as: UTF8.self)
            path = String(own.prefix(upTo: own.lastIndex(of: "/") ?? own.startIndex)) + "/hivemind-log"
        }
        guard access(path, X_OK) == 0 else {
            throw RuntimeError(
                .runtimeUnavailable, "the log program `\(path)` is missing",
                hint: "install hivemind-log beside hivemind; containers write their output through it")
        }
        return path
    }

    // MARK: Images and logs

    public func resolve(image reference: String) async throws -> ResolvedImage {
        try await images.resolve(image: reference)
    }

    public func pull(image reference: String, digest: String) async throws {
        try await images.pull(image: reference, digest: digest)
    }

    public func importImages(archive path: String, name: String?) async throws -> [ImageSummary] {
        try await images.importImages(archive: path, name: name)
    }

    public func images() async throws -> [ImageSummary] { try await images.images() }

    public func removeImage(_ reference: String) async throws { try await images.removeImage(reference) }

    public func logs(_ query: LogQuery) -> AsyncThrowingStream<LogLine, any Error> { logStore.logs(query) }

    public func removeLogs(task: TaskID) async throws { try await logStore.remove(task: task) }

    public func loggedTasks() async throws -> [TaskID] { await logStore.tasks() }

    // MARK: State

    public func events() -> AsyncStream<RuntimeEvent> { hub.subscribe() }

    public func info() async -> RuntimeInfo {
        var info = RuntimeInfo(
            kind: "containerd", version: "", address: client.address, isReady: false, conditions: host.conditions)
        var options = CallOptions.defaults
        options.timeout = .seconds(2)
        guard let version = try? await client.unary.version.version(.init(), options: options) else {
            info.conditions.append("containerd does not answer")
            return info
        }
        info.version = version.version
        info.isReady = true
        if let server = try? await client.unary.introspection.server(.init(), options: options) {
            info.conditions += server.deprecations.map { "containerd: \($0.message)" }
        }
        return info
    }
}
