// SPDX-License-Identifier: Apache-2.0
internal import ArgumentParser

// The nouns: each prints its help when no verb follows.

struct AppCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "app", abstract: "Deploy and look after apps.",
        subcommands: [
            AppDeploy.self, AppList.self, AppInfo.self, AppScale.self, AppRestart.self, AppRebalance.self, AppLogs.self,
            AppDelete.self,
        ])
}

struct ServiceCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "service", abstract: "Look at the services of apps.",
        subcommands: [ServiceList.self, ServiceInfo.self])
}

struct VolumeCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "volume", abstract: "Keep data beyond the life of a container.",
        subcommands: [VolumeCreate.self, VolumeList.self, VolumeInfo.self, VolumeDelete.self])
}

struct ImageCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "image", abstract: "Fetch and remove images of this node.",
        subcommands: [ImagePull.self, ImageList.self, ImageImport.self, ImageRemove.self])
}

struct NodeCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "node", abstract: "Look after the machines.",
        subcommands: [
            NodeList.self, NodeInfo.self, NodeLabel.self, NodeTaint.self, NodeRole.self, NodeCordon.self,
            NodeUncordon.self, NodeDrain.self, NodeRemove.self,
        ])
}

struct NetworkCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "network", abstract: "Look at addresses and at what lies between nodes.",
        subcommands: [NetworkList.self, NetworkInfo.self, NetworkAddressCommand.self, NetworkDoctor.self])
}

struct NetworkAddressCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "ipam", abstract: "Look after the addresses.", subcommands: [NetworkAddressCheck.self])
}

struct ConfigCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "config", abstract: "Keep small versioned documents.",
        subcommands: [ConfigSet.self, ConfigGet.self, ConfigList.self, ConfigDelete.self])
}

struct ClusterCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "cluster", abstract: "Look after the members that agree on the state.",
        subcommands: [
            ClusterInit.self, ClusterJoin.self, ClusterLeave.self, ClusterTokenCommand.self, ClusterStatus.self,
            ClusterSet.self, ClusterTransferLeader.self, ClusterSnapshotCommand.self, ClusterRecover.self,
        ])
}

struct ClusterSnapshotCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "snapshot", abstract: "Keep the whole state in a file.",
        subcommands: [ClusterSnapshotSave.self, ClusterSnapshotList.self, ClusterSnapshotRestore.self])
}
