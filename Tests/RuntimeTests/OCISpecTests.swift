// SPDX-License-Identifier: Apache-2.0
import ContainerdAPI
import FoundationEssentials
import Glibc
import Model
import SwiftProtobuf
import Testing

@testable import ContainerRuntime

struct OCISpecTests {
    private static let host = HostFacts(
        capabilities: Set(Capabilities.known).subtracting(["CAP_SYS_RESOURCE"]), openFilesMax: 20_000,
        oomScoreAdjustment: -500, isUnifiedCgroup: false, limitsSwap: true)
    private static let root = OCIDocument.User(uid: 0, gid: 0, additionalGids: [0])

    private func document(
        image: ImageConfig = ImageConfig(entrypoint: ["/entry"], command: ["image"]),
        host: HostFacts = Self.host,
        mounts: [ContainerMount] = [],
        _ change: (inout ServiceSpec) -> Void = { _ in }
    ) throws -> OCIDocument {
        var service = ServiceSpec(name: "web", image: "web:1")
        change(&service)
        let container = ContainerSpec(
            id: "abc.0", task: "abc", attempt: 0, service: service, app: ObjectKey(name: "shop"), mounts: mounts,
            networkNamespace: "/run/netns/x", address: nil, nameServers: [], hostname: "web-1")
        return try OCISpec(
            container: container, image: image, user: Self.root, host: host, filesDirectory: "/data/tasks/abc.0",
            node: "n1"
        ).document()
    }

    @Test
    func `entrypoint and command combine as in Docker`() throws {
        #expect(try document().process.args == ["/entry", "image"])
        #expect(try document { $0.command = ["own"] }.process.args == ["/entry", "own"])
        #expect(try document { $0.entrypoint = ["/other"] }.process.args == ["/other"])
        #expect(
            try document {
                $0.entrypoint = ["/other"]
                $0.command = ["own"]
            }.process.args == ["/other", "own"])
        #expect(throws: RuntimeError.self) { try document(image: ImageConfig()) }
    }

    @Test
    func `the service's environment wins over the image's, which wins over ours`() throws {
        let image = ImageConfig(command: ["x"], environment: ["PATH=/image", "A=1"])
        let environment = try document(image: image) { $0.environment = ["A": "2", "B": "3=4"] }.process.env
        #expect(environment == ["PATH=/image", "HOSTNAME=web-1", "A=2", "B=3=4"])
    }

    @Test
    func `limits are written as the kernel takes them`() throws {
        let resources = try document {
            $0.resources = Resources(cpuMillis: 250, memoryBytes: 1 << 20, pidsMax: 9)
        }.linux.resources
        #expect(resources.cpu == .init(shares: 256, quota: 25_000, period: 100_000))
        #expect(resources.memory == .init(limit: 1 << 20, swap: 1 << 20))
        #expect(resources.pids == .init(limit: 9))
        let tiny = try document { $0.resources.cpuMillis = 1 }.linux.resources
        #expect(tiny.cpu == .init(shares: 2, quota: 1000, period: 100_000))
        var host = Self.host
        host.limitsSwap = false
        #expect(try document(host: host) { $0.resources.memoryBytes = 5 }.linux.resources.memory?.swap == nil)
    }

    @Test
    func `what this process may not grant is not asked for`() throws {
        let process = try document().process
        #expect(process.rlimits == [.init(type: "RLIMIT_NOFILE", hard: 20_000, soft: 20_000)])
        #expect(process.oomScoreAdj == 0)
        #expect(process.capabilities.bounding == Capabilities.standard)
        #expect(throws: RuntimeError.self) { try document { $0.capabilitiesAdd = ["SYS_RESOURCE"] } }
    }

    @Test
    func `a mount of the service replaces ours and parents come first`() throws {
        let mounts = try document(
            mounts: [
                ContainerMount(kind: .bind(source: "/b"), target: "/data/deep/", readOnly: true),
                ContainerMount(kind: .tmpfs(sizeBytes: 64), target: "/data", readOnly: false),
                ContainerMount(kind: .bind(source: "/hosts"), target: "/etc/hosts", readOnly: false),
            ]).mounts
        #expect(mounts.filter { $0.destination == "/etc/hosts" }.map(\.source) == ["/hosts"])
        #expect(mounts.suffix(3).map(\.destination) == ["/data", "/data/deep", "/etc/hosts"])
        #expect(mounts[mounts.count - 2].options == ["rbind", "rprivate", "ro"])
        #expect(mounts[mounts.count - 3].options.contains("size=64"))
        #expect(mounts.first?.destination == "/proc")
    }

    @Test
    func `namespaces and cgroup path are those of the node`() throws {
        let linux = try document().linux
        #expect(linux.cgroupsPath == "/hivemind/n1/abc.0")
        #expect(linux.namespaces.contains(.init(type: "network", path: "/run/netns/x")))
        #expect(!linux.namespaces.contains(.init(type: "cgroup")))
        var host = Self.host
        host.isUnifiedCgroup = true
        #expect(try document(host: host).linux.namespaces.contains(.init(type: "cgroup")))
    }

    @Test
    func `a relative working directory is refused`() throws {
        #expect(try document().process.cwd == "/")
        #expect(try document(image: ImageConfig(command: ["x"], workingDirectory: "/srv")).process.cwd == "/srv")
        #expect(throws: RuntimeError.self) { try document { $0.workingDirectory = "srv" } }
    }

    @Test
    func `the document has the specification's own names`() throws {
        let text = String(decoding: try JSONEncoder().encode(try document()), as: UTF8.self)
        for name in [
            "\"ociVersion\":", "\"noNewPrivileges\":true", "\"additionalGids\":", "\"cgroupsPath\":",
            "\"defaultErrnoRet\":1",
        ] {
            #expect(text.contains(name), "\(name)")
        }
    }
}

struct CapabilitiesTests {
    private static let all = Set(Capabilities.known)

    @Test
    func `names may lack CAP and have any case`() throws {
        let granted = try Capabilities.granted(add: ["net_admin"], drop: ["CAP_MKNOD", "chown"], available: Self.all)
        #expect(granted.contains("CAP_NET_ADMIN"))
        #expect(!granted.contains("CAP_MKNOD") && !granted.contains("CAP_CHOWN"))
        #expect(granted == granted.sorted())
    }

    @Test
    func `ALL drops everything that was not added, and adds everything there is`() throws {
        #expect(try Capabilities.granted(add: ["NET_RAW"], drop: ["ALL"], available: Self.all) == ["CAP_NET_RAW"])
        #expect(
            try Capabilities.granted(add: ["ALL"], drop: ["SYS_ADMIN"], available: Self.all).count == Self.all.count - 1
        )
    }

    @Test
    func `an unknown name is refused`() {
        #expect(throws: RuntimeError.self) { try Capabilities.granted(add: ["FLY"], drop: [], available: Self.all) }
    }

    @Test
    func `a mask reads as names`() {
        #expect(Capabilities.names(mask: 1 | 1 << 24) == ["CAP_CHOWN", "CAP_SYS_RESOURCE"])
    }
}

struct SeccompProfileTests {
    @Test
    func `system calls come with their capability`() {
        let plain = SeccompProfile.make(capabilities: [], isKnown: { _ in true })
        #expect(plain.syscalls[0].names.contains("openat"))
        #expect(!plain.syscalls[0].names.contains("mount"))
        #expect(!plain.syscalls[0].names.contains("clone"))
        #expect(plain.syscalls.contains { $0.names == ["clone3"] && $0.errnoRet == 38 })
        let admin = SeccompProfile.make(capabilities: ["CAP_SYS_ADMIN"], isKnown: { _ in true })
        #expect(admin.syscalls[0].names.contains("mount"))
        #expect(!admin.syscalls.contains { $0.names == ["clone3"] })
    }

    @Test
    func `names this machine does not know are left out`() {
        #expect(SeccompProfile.isKnown("openat"))
        #expect(!SeccompProfile.isKnown("no_such_call"))
        #expect(SeccompProfile.make(capabilities: [], isKnown: { $0 == "read" }).syscalls[0].names == ["read"])
    }
}

struct UserDatabaseTests {
    private let database = UserDatabase(
        passwd: "root:x:0:0::/root:/bin/sh\nbroken line\nweb:x:1000:1001::/:/bin/sh\n",
        group: "root:x:0:\nwheel:x:10:root,web\nweb:x:1001:\nextra:x:2000:web\n")

    @Test
    func `users resolve as in Docker`() throws {
        #expect(try database.resolve("") == .init(uid: 0, gid: 0, additionalGids: [0, 10]))
        #expect(try database.resolve("web") == .init(uid: 1000, gid: 1001, additionalGids: [1001, 10, 2000]))
        #expect(try database.resolve("1000") == .init(uid: 1000, gid: 1001, additionalGids: [1001, 10, 2000]))
        #expect(try database.resolve("77") == .init(uid: 77, gid: 0, additionalGids: [0]))
        #expect(try database.resolve("web:extra") == .init(uid: 1000, gid: 2000, additionalGids: [2000]))
        #expect(try database.resolve("5:6") == .init(uid: 5, gid: 6, additionalGids: [6]))
    }

    @Test(arguments: ["nobody", "web:nobody"])
    func `an unknown name is a final reason`(text: String) throws {
        let error = #expect(throws: RuntimeError.self) { try database.resolve(text) }
        #expect(error?.reason.code == .userNotFound)
    }
}

struct StartFailureTests {
    @Test(arguments: [
        (
            "failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: exec: \"foo\": executable file not found in $PATH: unknown",
            Reason.Code.commandNotFound
        ),
        (
            "OCI runtime create failed: runc create failed: unable to start container process: exec: \"/foo\": stat /foo: no such file or directory: unknown",
            .commandNotFound
        ),
        ("OCI runtime create failed: exec: \"/etc/passwd\": permission denied: unknown", .commandNotExecutable),
        ("OCI runtime create failed: exec: \"/etc\": is a directory: permission denied", .commandNotExecutable),
        (
            "unable to start container process: error during container init: error mounting \"/src\" to rootfs at \"/dst\": stat /src: no such file or directory: unknown",
            .mountSourceMissing
        ),
        ("error mounting \"/src\" to rootfs at \"/dst\": permission denied", .startFailed),
        ("mkdir /x: no space left on device", .noSpace),
        ("failed to create shim task: lstat /run/netns/gone: no such file or directory", .networkFailed),
        ("something else altogether", .startFailed),
    ])
    func `runc's texts become reasons`(text: String, code: Reason.Code) {
        #expect(StartFailure.reason(text: text).code == code)
    }

    @Test
    func `messages name the thing and stay short`() {
        let reason = StartFailure.reason(text: "exec: \"foo\": executable file not found in $PATH: unknown")
        #expect(reason.message == "the image has no command `foo`")
        #expect(StartFailure.reason(text: String(repeating: "x", count: 5000)).message.count < 500)
    }
}

struct ContainerdPartsTests {
    @Test
    func `the configuration keeps everything below the data directory`() throws {
        let file = try ContainerdConfigFile(dataDirectory: "/var/lib/hivemind")
        #expect(file.text.contains("root = \"/var/lib/hivemind/containerd/root\""))
        #expect(
            file.text.contains("\"io.containerd.grpc.v1.cri\"")
                && file.text.contains("\"io.containerd.cri.v1.runtime\""))
        #expect(throws: RuntimeError.self) {
            try ContainerdConfigFile(dataDirectory: "/" + String(repeating: "long/", count: 20))
        }
        #expect(throws: RuntimeError.self) { try ContainerdConfigFile(dataDirectory: "relative") }
    }

    @Test
    func `signals are known by name and number`() {
        #expect(Signal.number("SIGTERM") == 15)
        #expect(Signal.number("int") == 2)
        #expect(Signal.number("9") == 9)
        #expect(Signal.number("SIGRTMIN+3") == 37)
        #expect(Signal.number("RTMAX-1") == 63)
        #expect(Signal.number("0") == nil)
        #expect(Signal.number("SIGNOTHING") == nil)
    }

    @Test
    func `kernel counters of both cgroup versions are read`() {
        #expect(OutOfMemory.hasKill("oom_kill_disable 0\nunder_oom 0\noom_kill 1\n"))
        #expect(!OutOfMemory.hasKill("low 0\noom 3\noom_kill 0\n"))
    }

    @Test
    func `files of etc carry the address and ask for no search`() {
        #expect(TaskFiles.resolver([AddressRanges.nameServer]) == "nameserver 169.254.20.10\noptions ndots:1\n")
        #expect(ContainerdRuntime.escaped("/a b/ü.log") == "/a%20b/%C3%BC.log")
    }

    @Test
    func `an image is looked at without its writable layer`() {
        let several = ImageRoot.readOnly(
            .with {
                $0.type = "overlay"
                $0.options = ["index=off", "workdir=/w", "upperdir=/u", "lowerdir=/s/2/fs:/s/1/fs"]
            })
        #expect(several.data == "index=off,lowerdir=/s/2/fs:/s/1/fs")
        let one = ImageRoot.readOnly(
            .with {
                $0.type = "overlay"
                $0.options = ["workdir=/w", "upperdir=/u", "lowerdir=/s/1/fs"]
            })
        #expect(one.type == "bind" && one.source == "/s/1/fs")
        let many = ImageRoot.readOnly(
            .with {
                $0.type = "overlay"
                $0.options = [
                    "lowerdir=" + (1...120).map { "/var/lib/somewhere/snapshots/\($0)/fs" }.joined(separator: ":")
                ]
            })
        #expect(many.workingDirectory == "/var/lib/somewhere/snapshots/")
        #expect(many.data.utf8.count < 4000)
    }

    @Test
    func `places are handed out in order and a wait ends`() async throws {
        let slots = Slots(limit: 1, waitersMax: 1)
        #expect(try await slots.acquire(timeout: .seconds(1)))
        #expect(try await slots.acquire(timeout: .milliseconds(5)) == false)
        async let waiting = slots.acquire(timeout: .seconds(10))
        slots.release()
        #expect(try await waiting)
        slots.release()
    }

    @Test
    func `a process is told apart from a later one of the same number`() throws {
        let own = try #require(ProcessIdentity(pid: getpid()))
        #expect(own.isRunning)
        #expect(ProcessIdentity(text: own.text) == own)
        var other = own
        other.startTicks += 1
        #expect(!other.isRunning)
    }
}
