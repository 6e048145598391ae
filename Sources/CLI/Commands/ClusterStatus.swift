// SPDX-License-Identifier: Apache-2.0
internal import ArgumentParser
internal import FoundationEssentials
internal import Model

struct ClusterStatus: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "status", abstract: "Show the members, who leads and how far each is.",
        discussion: """
            As the node behind the socket knows it: that works without a leader, too. How far the others are only the \
            leader knows.

            Example:
              hivemind cluster status
            """)

    @OptionGroup(title: "Common") var global: GlobalOptions
    @OptionGroup(title: "Common") var read: ReadOption

    func run() async throws {
        let output = try global.result()
        let client = global.client()
        let cluster: Answer<ClusterView> = try await client.get("/v1/cluster", read.query)
        let view = cluster.value
        guard !output.format.isForPrograms else {
            return try output.show(json: cluster.body, names: view.members.map(\.name)) { _ in "" }
        }
        let status: Answer<StatusView> = try await client.get("/v1/status")
        let block = Self.block(view, status.value, isWide: output.format == .wide)
        try output.show(json: cluster.body, names: []) { block.rendered($0) }
        if view.leader == nil {
            output.next("cluster status --socket OTHER", afterReading: true)
        } else if view.members.count > 1 {
            output.next("cluster transfer-leader", "node ls", afterReading: true)
        } else {
            output.next("node ls", afterReading: true)
        }
    }

    static func block(_ cluster: ClusterView, _ node: StatusView, isWide: Bool) -> Block {
        var block = Block()
        block.add("cluster", cluster.id)
        block.add("leader", cluster.leader ?? "none: no write can be agreed", cluster.leader == nil ? .bad : .good)
        block.add("term", cluster.term)
        block.add("committed", cluster.commitIndex)
        block.add("nodes", cluster.nodes)
        if let downAfter = cluster.downAfter { block.add("down after", "\(downAfter) of silence") }
        block.add(
            "this node",
            cluster.leader == node.node ? "\(node.node), \(node.role), leader" : "\(node.node), \(node.role)")
        let behind = cluster.commitIndex - min(cluster.commitIndex, node.appliedIndex)
        block.add("applied", behind == 0 ? "\(node.appliedIndex)" : "\(node.appliedIndex), \(behind) behind")
        if let log = node.log {
            let size = log.bytes.map { ", \(Format.bytes($0))" } ?? ""
            block.add("log", "entries \(log.firstIndex) to \(log.lastIndex)\(size)")
        }
        if let fsync = node.fsync {
            block.add(
                "fsync",
                "p50 \(Format.milliseconds(fsync.p50Ms)), p99 \(Format.milliseconds(fsync.p99Ms)) of "
                    + "\(fsync.samples) in \(fsync.windowSeconds)s")
        }
        if let snapshot = node.snapshot {
            block.add("snapshot", "of entry \(snapshot.index), \(Format.bytes(snapshot.bytes)), \(snapshot.createdAt)")
        }
        for condition in node.conditions { block.add("condition", condition, .bad) }
        for member in cluster.members {
            if let refusal = member.refusal { block.add("refusal", "\(member.name): \(refusal)", .bad) }
        }
        block.add("members", members(cluster))
        return block
    }

    private static func members(_ cluster: ClusterView) -> Table {
        Table(
            [
                "NAME", .wide("ID"), "ROLE", "ADDRESS", .init("MATCH", right: true), .init("LAG", right: true),
                "LAST CONTACT",
            ],
            cluster.members.map { member in
                let isLeader = member.name == cluster.leader
                let contact = member.lastContactMs.map { Int64($0) }
                return [
                    Cell(member.name), Cell(member.id.raw),
                    Cell(isLeader ? "\(member.role), leader" : member.role, isLeader ? .good : .plain),
                    Cell(member.address), Cell(member.matchIndex.map { "\($0)" }),
                    Cell(member.lag.map { "\($0)" }, (member.lag ?? 0) > 1000 ? .busy : .plain),
                    isLeader
                        ? Cell("itself", .dim)
                        : Cell(contact.map { Format.contact(milliseconds: $0) }, (contact ?? 0) > 2000 ? .bad : .plain),
                ]
            })
    }
}
