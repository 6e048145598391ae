// SPDX-License-Identifier: Apache-2.0
import Glibc
import Model
import Synchronization
import Testing

@testable import ContainerNetwork

/// A node in a network namespace of its own, with a second one joined to it that stands for everything outside.
/// Nothing of the machine's own network is touched; both vanish with the process.
final class TestNode: Sendable {
    static let canRun = geteuid() == 0 && access("/usr/sbin/ip", X_OK) == 0 && access("/proc/self/ns/net", F_OK) == 0
    static let reason: Comment = "needs root and /usr/sbin/ip, to make network namespaces"

    static let nodeAddress = IPv4Address(value: 192 << 24 | 2 << 8 | 1)
    static let outsideAddress = IPv4Address(value: 192 << 24 | 2 << 8 | 2)

    let network: NodeNetwork
    let networking: KernelNetworking
    /// Paths that can be entered.
    let inside: String
    let outside: String
    let folder: String
    private let descriptors: [Int32]
    private static let count = Mutex(0)

    /// - Parameter number: of its subnet, 1...254.
    init(number: Int = 1, overlay: OverlayEnd? = nil) throws {
        network = NodeNetwork(
            subnet: IPv4Subnet(AddressRanges.standard.containers[256 * number], prefix: 24), ranges: .standard,
            overlay: overlay)
        descriptors = try (0..<2).map { _ in try Self.makeNamespace() }
        inside = "/proc/\(getpid())/fd/\(descriptors[0])"
        outside = "/proc/\(getpid())/fd/\(descriptors[1])"
        folder = "/tmp/hmnet-\(getpid())-\(Self.count.withLock { $0 += 1; return $0 })"
        networking = try KernelNetworking(dataDirectory: folder, namespacePath: inside)
    }

    /// A prepared node, removed when `body` is done or failed.
    static func with(prepared: Bool = true, _ body: (TestNode, KernelNetworking) async throws -> Void) async throws {
        let node = try TestNode()
        let networking = node.networking
        var failure: (any Error)?
        do {
            try node.join()
            if prepared { try await networking.prepare(node.network) }
            try await body(node, networking)
        } catch { failure = error }
        try await node.remove()
        if let failure { throw failure }
    }

    /// Everything of it.
    func remove() async throws {
        defer { for descriptor in descriptors { close(descriptor) } }
        try await networking.tearDown()
        #expect(try handles().isEmpty)
        rmdir(folder + "/netns")
        rmdir(folder)
    }

    func makeNetworking() throws -> KernelNetworking {
        try KernelNetworking(dataDirectory: folder, namespacePath: inside)
    }

    static func makeNamespace() throws -> Int32 {
        try Threads.run { () throws(NetworkError) in
            let path = "/proc/thread-self/ns/net"
            try NetworkNamespace.enterNew()
            let descriptor = open(path, O_RDONLY | O_CLOEXEC)
            guard descriptor >= 0 else { throw .system("open", errno: errno) }
            return descriptor
        }
    }

    private func join() throws {
        try ip("link set lo up")
        try ip("link set lo up", in: outside)
        try ip("link add up0 type veth peer name up0 netns \(outside)")
        try ip("addr add \(Self.nodeAddress)/24 dev up0")
        try ip("addr add \(Self.outsideAddress)/24 dev up0", in: outside)
        try ip("link set up0 up")
        try ip("link set up0 up", in: outside)
        try ip("route add default via \(Self.outsideAddress)")
    }

    /// Runs `ip` inside a namespace.
    func ip(_ arguments: String, in namespace: String? = nil) throws {
        try run("/usr/sbin/ip", arguments.split(separator: " ").map(String.init), in: namespace)
    }

    func run(_ program: String, _ arguments: [String], in namespace: String? = nil) throws {
        let status = try NetworkNamespace.run(in: namespace ?? inside) { () throws(NetworkError) -> Int32 in
            var pid = pid_t()
            var words: [UnsafeMutablePointer<CChar>?] = ([program] + arguments).map { strdup($0) } + [nil]
            defer { for word in words { free(word) } }
            // A child starts in the namespace of the thread that makes it.
            let status = posix_spawn(&pid, program, nil, nil, &words, nil)
            guard status == 0 else { throw .system("cannot run \(program)", errno: status) }
            var result: Int32 = 0
            waitpid(pid, &result, 0)
            return result
        }
        guard status == 0 else { throw TestFailure("\(program) \(arguments.joined(separator: " ")): status \(status)") }
    }

    func attach(_ networking: KernelNetworking, _ task: TaskID, _ host: Int) async throws -> Container {
        let attachment = try await networking.attach(AttachmentRequest(task: task, address: network.subnet[host]))
        return Container(
            task: task,
            address: attachment.address,
            namespace: try #require(attachment.namespacePath)
        )
    }

    func vip(_ number: Int) -> IPv4Address { network.ranges.virtual[number] }

    // What is left in the kernel.

    func links() throws -> [String] {
        try NetworkNamespace.run(in: inside) { () throws(NetworkError) in try NetlinkSocket().links().map(\.name) }
            .sorted()
    }

    func routes() throws -> Set<Route> {
        Set(try NetworkNamespace.run(in: inside) { () throws(NetworkError) in try NetlinkSocket().routes() })
    }

    func hasTable() throws -> Bool {
        try NetworkNamespace.run(in: inside) { () throws(NetworkError) in try RuleContext().hasTable() }
    }

    /// Flows that touch an address.
    func flows(_ address: IPv4Address) throws -> Int {
        try NetworkNamespace.run(in: inside) { () throws(NetworkError) in
            var count = 0
            let table = try FlowTable()
            for filter in [FlowFilter.openedBy(address), .answeredBy(address)] {
                try table.delete(filter) { _ in
                    count += 1
                    return false
                }
            }
            return count
        }
    }

    func handles() throws -> [LinkName] { try NamespaceFolder(dataDirectory: folder).tasks() }
}

struct TestFailure: Error, CustomStringConvertible {
    var description: String
    init(_ description: String) { self.description = description }
}

struct Container: Sendable {
    var task: TaskID
    var address: IPv4Address
    var namespace: String
}
