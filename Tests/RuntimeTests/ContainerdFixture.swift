// SPDX-License-Identifier: Apache-2.0
import FoundationEssentials
import Glibc
import Logging
import Model
import Testing

@testable import ContainerRuntime

/// What the tests with a real containerd need of the machine.
enum ContainerdHost {
    static let isUsable =
        getuid() == 0 && access("/bin/busybox", X_OK) == 0
        && ["containerd", "containerd-shim-runc-v2", "runc"].allSatisfy { program in
            ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin"].contains {
                access("\($0)/\(program)", X_OK) == 0
            }
        }
    static let reason: Comment =
        "needs root, containerd, runc and /bin/busybox (apt-get install containerd runc busybox-static)"
}

/// A runtime with a private containerd in a directory of its own, and a busybox image made on the spot.
struct ContainerdFixture: Sendable {
    let directory: String
    let runtime: ContainerdRuntime
    let image: ResolvedImage

    /// Runs `body` and leaves nothing behind, also when it throws.
    static func run(_ body: @Sendable (ContainerdFixture) async throws -> Void) async throws {
        let directory = "/tmp/hmrt-\(UInt32.random(in: 0 ... .max))"
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
        var runtime: ContainerdRuntime?
        let result: Result<Void, any Error>
        do {
            let started = try await start(in: directory)
            runtime = started
            let summary = try #require(
                try await started.importImages(archive: makeArchive(in: directory), name: nil).first)
            let image = ResolvedImage(reference: summary.name, digest: summary.digest, isLocal: true)
            try await body(ContainerdFixture(directory: directory, runtime: started, image: image))
            result = .success(())
        } catch {
            result = .failure(error)
        }
        await cleanUp(directory, runtime)
        try result.get()
    }

    static func start(in directory: String) async throws -> ContainerdRuntime {
        var log = Logger(label: "test")
        log.logLevel = .error
        return try await ContainerdRuntime.start(configuration(in: directory), logger: log)
    }

    static func configuration(in directory: String) -> ContainerdRuntimeConfiguration {
        let own = CommandLine.arguments[0]
        let beside = String(own.prefix(upTo: own.lastIndex(of: "/") ?? own.startIndex)) + "/hivemind-log"
        return ContainerdRuntimeConfiguration(
            dataDirectory: directory, nodeName: nodeName(directory),
            logProgram: access(beside, X_OK) == 0 ? beside : nil)
    }

    static func nodeName(_ directory: String) -> String {
        String(directory.split(separator: "/").last ?? "test")
    }

    /// A container of the image with a shell command.
    func spec(
        _ name: String, _ command: [String], change: (inout ServiceSpec) -> Void = { _ in },
        mounts: [ContainerMount] = []
    ) -> ContainerSpec {
        var service = ServiceSpec(name: "web", image: image.reference, imageDigest: image.digest, command: command)
        change(&service)
        let task = TaskID(name)
        return ContainerSpec(
            id: ContainerID(task: task, attempt: 0), task: task, attempt: 0, service: service,
            app: ObjectKey(name: "shop"), mounts: mounts, networkNamespace: nil, address: IPv4Address("10.1.2.3"),
            nameServers: [AddressRanges.nameServer], hostname: "web-1")
    }

    func state(_ id: ContainerID) async throws -> ObservedContainer.State? {
        try await runtime.containers().first { $0.id == id }?.state
    }

    /// Waits for the end of a container.
    func exit(of id: ContainerID, within limit: Duration = .seconds(20)) async throws -> Model.ExitStatus {
        let deadline = ContinuousClock.now + limit
        while ContinuousClock.now < deadline {
            if case .exited(let status) = try await state(id) { return status }
            try await Task.sleep(for: .milliseconds(20))
        }
        throw RuntimeError(.deadlineExceeded, "container \(id) did not end in \(limit)")
    }

    /// Standard output of a container that ends by itself.
    func output(of spec: ContainerSpec) async throws -> String {
        _ = try await runtime.start(spec)
        _ = try await exit(of: spec.id)
        let deadline = ContinuousClock.now + .seconds(5)
        var text = ""
        // The writer drains its pipe after the exit.
        while ContinuousClock.now < deadline {
            text = ""
            for try await line in runtime.logs(LogQuery(task: spec.task)) { text += line.text + "\n" }
            if text.contains("END\n") { break }
            try await Task.sleep(for: .milliseconds(20))
        }
        try await runtime.remove(spec.id)
        return text
    }

    static func wait(_ limit: Duration = .seconds(20), for condition: () async throws -> Bool) async throws {
        let deadline = ContinuousClock.now + limit
        while !(try await condition()) {
            guard ContinuousClock.now < deadline else { throw RuntimeError(.deadlineExceeded, "condition not met") }
            try await Task.sleep(for: .milliseconds(10))
        }
    }

    static func shell(_ script: String) throws {
        var pid = pid_t()
        let words: [String] = ["/bin/sh", "-ec", script]
        var argv: [UnsafeMutablePointer<CChar>?] = words.map { strdup($0) } + [nil]
        defer { for pointer in argv { free(pointer) } }
        try #require(posix_spawn(&pid, "/bin/sh", nil, nil, &argv, environ) == 0)
        var status: Int32 = 0
        try #require(waitpid(pid, &status, 0) == pid && status == 0, "script failed: \(script)")
    }

    /// A docker-archive with one layer.
    static func makeArchive(in directory: String) throws -> String {
        try shell(
            """
            mkdir -p \(directory)/image/root && cd \(directory)/image
            mkdir -p root/bin root/etc root/data/sub root/tmp root/private
            cp /bin/busybox root/bin/
            for name in sh sleep cat id env true false ls stat pwd echo hostname kill dd tail grep mkdir; do
              ln -s busybox root/bin/$name
            done
            printf 'root:x:0:0::/root:/bin/sh\\nweb:x:1000:1000::/:/bin/sh\\n' > root/etc/passwd
            printf 'root:x:0:\\nweb:x:1000:\\nextra:x:2000:web\\n' > root/etc/group
            echo first > root/data/file && echo deep > root/data/sub/file && ln -s file root/data/link
            chown -R 1000:1000 root/data && chmod 750 root/data
            echo 'not a program' > root/private/text
            tar -C root -cf layer.tar .
            digest=$(sha256sum layer.tar | cut -d' ' -f1)
            arch=$(uname -m | sed 's/x86_64/amd64/;s/aarch64/arm64/')
            cat > config.json <<EOF
            {"architecture":"$arch","os":"linux","config":{"Env":["IMAGE=yes"],"Cmd":["/bin/sleep","1000"],"StopSignal":"SIGINT"},
             "rootfs":{"type":"layers","diff_ids":["sha256:$digest"]}}
            EOF
            echo '[{"Config":"config.json","RepoTags":["hivemind.test/busybox:1"],"Layers":["layer.tar"]}]' > manifest.json
            tar -cf image.tar manifest.json config.json layer.tar
            """)
        return "\(directory)/image/image.tar"
    }

    private static func cleanUp(_ directory: String, _ runtime: ContainerdRuntime?) async {
        if let runtime {
            // Best effort on the way out: what is left is found by the checks below.
            for container in (try? await runtime.containers()) ?? [] { try? await runtime.remove(container.id) }
            await runtime.shutdown()
        }
        let node = nodeName(directory)
        try? shell(
            """
            for mount in $(grep -o ' \(directory)/[^ ]*' /proc/self/mounts | sort -r); do umount -l $mount || true; done
            for tree in /sys/fs/cgroup /sys/fs/cgroup/*; do
              rmdir $tree/hivemind/\(node)/* $tree/hivemind/\(node) $tree/hivemind 2>/dev/null || true
            done
            rm -rf \(directory)
            """)
    }
}
