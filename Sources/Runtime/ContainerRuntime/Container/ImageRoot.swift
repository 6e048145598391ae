// SPDX-License-Identifier: Apache-2.0
internal import ContainerdAPI
internal import CoreFoundation  // Either this or Glibc owns C structs, by the order files are compiled in.
internal import FoundationEssentials
internal import Glibc
internal import Model

/// Looks into the file system of an image without changing it: mounts its layers read-only on a private thread and makes
/// that the thread's root, so that a link in the image cannot lead outside.
struct ImageRoot: Sendable {
    /// What the snapshotter gave for the container; its writable layer is left out.
    var mounts: [Containerd_Types_Mount]
    /// An empty directory to mount on.
    var mountPoint: String

    /// A volume to fill, and where the image has its first content.
    struct Seed: Hashable, Sendable {
        var volume: String
        var target: String
    }

    /// Reads the users when `users` is set, then fills the volumes.
    /// - Throws: `volumeFailed` when a volume cannot be filled; `noSpace`.
    /// - Complexity: one mount, plus the size of what is copied.
    func look(users: Bool, seeds: [Seed]) async throws(RuntimeError) -> UserDatabase? {
        try await PrivateThread.run { () throws(RuntimeError) in
            // Opened before the root changes: afterwards these paths mean nothing.
            var volumes: [(descriptor: Int32, target: String)] = []
            defer { for volume in volumes { close(volume.descriptor) } }
            for seed in seeds {
                let descriptor = open(seed.volume, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
                guard descriptor >= 0 else { throw FileTree.failure("open volume", seed.volume) }
                volumes.append((descriptor, seed.target))
            }
            try enter()
            for volume in volumes { try FileTree.seed(descriptor: volume.descriptor, from: volume.target) }
            guard users else { return nil }
            return UserDatabase(
                passwd: HostFacts.text("/etc/passwd") ?? "", group: HostFacts.text("/etc/group") ?? "")
        }
    }

    private func enter() throws(RuntimeError) {
        guard let last = mounts.last, mounts.count == 1 else {
            throw RuntimeError(.internal, "the snapshotter gave \(mounts.count) mounts, one was expected")
        }
        let plan = Self.readOnly(last)
        if let directory = plan.workingDirectory, chdir(directory) != 0 { throw TaskFiles.failure("enter", directory) }
        let status =
            plan.type == "bind"
            ? mount(plan.source, mountPoint, nil, UInt(MS_BIND), nil)
            : mount(plan.source, mountPoint, plan.type, UInt(MS_RDONLY), plan.data)
        guard status == 0 else { throw TaskFiles.failure("mount the image on", mountPoint) }
        guard chroot(mountPoint) == 0, chdir("/") == 0 else { throw TaskFiles.failure("enter", mountPoint) }
    }

    struct Plan: Hashable {
        var type: String
        var source: String
        var data: String
        var workingDirectory: String?
    }

    /// A mount that shows the same files and writes nothing: an overlay of the lower layers alone, or, for one layer
    /// only (an overlay needs two), that layer itself.
    static func readOnly(_ mount: Containerd_Types_Mount) -> Plan {
        guard mount.type == "overlay", let lower = mount.options.first(where: { $0.hasPrefix("lowerdir=") }) else {
            return Plan(type: "bind", source: mount.source, data: "")
        }
        let layers = lower.dropFirst("lowerdir=".count).split(separator: ":").map(String.init)
        if layers.count == 1 { return Plan(type: "bind", source: layers[0], data: "") }
        let others = mount.options.filter { option in
            option == "index=off" || option == "userxattr" || option.hasPrefix("redirect_dir")
        }
        let whole = (others + ["lowerdir=" + layers.joined(separator: ":")]).joined(separator: ",")
        // The kernel takes one page of options: many layers only fit relative to the directory they share.
        if whole.utf8.count < 4000 { return Plan(type: "overlay", source: "overlay", data: whole) }
        let shared = commonDirectory(layers)
        let relative = layers.map { String($0.dropFirst(shared.count)) }.joined(separator: ":")
        return Plan(
            type: "overlay", source: "overlay", data: (others + ["lowerdir=" + relative]).joined(separator: ","),
            workingDirectory: shared)
    }

    /// Ends in `/`.
    private static func commonDirectory(_ paths: [String]) -> String {
        guard let first = paths.first else { return "/" }
        var prefix = first[...]
        for path in paths.dropFirst() {
            while !path.hasPrefix(prefix) { prefix = prefix.dropLast() }
        }
        while let last = prefix.last, last != "/" { prefix = prefix.dropLast() }
        return prefix.isEmpty ? "/" : String(prefix)
    }
}
