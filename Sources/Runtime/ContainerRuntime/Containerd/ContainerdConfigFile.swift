// SPDX-License-Identifier: Apache-2.0
internal import Model

/// Where a private containerd keeps its things, and its configuration.
struct ContainerdConfigFile: Hashable, Sendable {
    /// `<data-dir>/containerd`
    let directory: String

    var path: String { "\(directory)/config.toml" }
    var socket: String { "\(directory)/containerd.sock" }
    var pidFile: String { "\(directory)/containerd.pid" }
    var log: String { "\(directory)/containerd.log" }

    init(dataDirectory: String) throws(RuntimeError) {
        directory = "\(dataDirectory)/containerd"
        guard dataDirectory.hasPrefix("/"), !dataDirectory.contains(where: { $0 == "\"" || $0 == "\\" || $0.isNewline })
        else {
            throw RuntimeError(
                .runtimeUnavailable, "data directory `\(dataDirectory)` is not an absolute path of plain characters",
                hint: "choose another --data-dir")
        }
        // containerd adds a suffix for its second socket.
        try ContainerdClient.check(socket: "\(socket).ttrpc")
    }

    /// Plugins nobody here uses: the Kubernetes interface, which wants CNI, snapshotters that need other file systems,
    /// and `opt`, which makes /opt/containerd. Ids of 1.x and 2.x; one that does not exist is ignored.
    private static let disabled = [
        "io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime",
        "io.containerd.nri.v1.nri", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.blockfile",
        "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper",
        "io.containerd.snapshotter.v1.erofs", "io.containerd.snapshotter.v1.zfs", "io.containerd.internal.v1.opt",
        "io.containerd.internal.v1.restart", "io.containerd.internal.v1.tracing",
        "io.containerd.tracing.processor.v1.otlp", "io.containerd.image-verifier.v1.bindir",
    ]

    /// Version 2 of the format: 1.x knows no newer one, 2.x reads it.
    var text: String {
        """
        # Made anew at each start of hivemind.
        version = 2
        root = "\(directory)/root"
        state = "\(directory)/state"
        disabled_plugins = [\(Self.disabled.map { "\"\($0)\"" }.joined(separator: ", "))]

        [grpc]
          address = "\(socket)"

        [debug]
          level = "warn"

        """
    }
}
