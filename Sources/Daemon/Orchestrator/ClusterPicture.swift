// SPDX-License-Identifier: Apache-2.0
public import Model
public import Store

/// What placement needs to know of the whole cluster, read at one moment.
public enum ClusterPicture {
    /// - Complexity: one pass over the tasks inside SQLite, then one row for each service a node has tasks of.
    public static func scheduler(_ state: StateView, now: Timestamp) throws -> Scheduler {
        let reservations = Dictionary(
            try state.reservations().map {
                (Scheduler.Generation(app: $0.app, service: $0.service, number: $0.generation), $0)
            }, uniquingKeysWith: { first, _ in first })
        var loads: [NodeID: Scheduler.Load] = [:]
        var running: [Scheduler.Generation: [NodeID: Int]] = [:]
        for row in try state.taskCounts() {
            let generation = Scheduler.Generation(app: row.app, service: row.service, number: row.generation)
            let each = reservations[generation]
            loads[row.node, default: Scheduler.Load()].tasks += row.living
            loads[row.node]?.cpuMillis += row.living * (each?.cpuMillis ?? 0)
            loads[row.node]?.memoryBytes += Int64(row.living) * (each?.memoryBytes ?? 0)
            if row.wanted > 0 { running[generation, default: [:]][row.node, default: 0] += row.wanted }
        }
        let volumes = Dictionary(
            try state.volumes().compactMap { volume in volume.node.map { (volume.key, $0) } },
            uniquingKeysWith: { first, _ in first })
        return Scheduler(nodes: try state.nodes(), loads: loads, running: running, volumes: volumes, now: now)
    }
}
