// SPDX-License-Identifier: Apache-2.0
internal import Model
public import Store

/// What placement needs to know of the whole cluster, kept from one decision to the next.
///
/// What tasks take is kept app by app, as nothing in one app's share depends on another app: a change costs what the apps
/// it touches have, not what the cluster has. After any commands, a picture that noted all they touched and was refreshed
/// equals one made anew.
public struct ClusterPicture: Hashable, Sendable {
    /// By id.
    public private(set) var nodes: [NodeRow]
    private(set) var places: [NodeID: Int]
    /// In the order of `nodes`.
    private(set) var loads: [Scheduler.Load]
    /// Wanted tasks, per place of `nodes`; none that are 0.
    private(set) var running: [Scheduler.Generation: [Int: Int]]
    /// Of those that have one.
    private(set) var volumes: [ObjectKey: NodeID]

    /// Ports of nodes that tasks have for themselves, per place of `nodes`: whose they are, in order. More than one has the
    /// same port only where a task was placed by a leader that was none any more.
    private var claims: [Int: [HostPort: [Scheduler.Generation]]] = [:]

    private var shares: [ObjectKey: [Share]]
    private var staleApps: Set<ObjectKey> = []
    private var staleVolumes: Set<ObjectKey> = []
    private var hasStaleNodes = false

    /// What the tasks of one generation take of one node.
    private struct Share: Hashable {
        var generation: Scheduler.Generation
        var place: Int
        var load: Scheduler.Load
        var wanted: Int
        var ports: [HostPort]
    }

    /// - Parameter known: the nodes of `state`, where they are at hand already.
    /// - Complexity: one pass over the tasks inside SQLite, then one row for each service a node has tasks of.
    public init(_ state: StateView, nodes known: [NodeRow]? = nil) throws {
        nodes = try (known ?? state.nodes()).sorted { $0.id < $1.id }
        places = Self.places(of: nodes)
        loads = Array(repeating: Scheduler.Load(), count: nodes.count)
        running = [:]
        volumes = try state.volumeHomes()
        shares = [:]
        let counts = try state.taskCounts(), reservations = try state.reservations()
        shares = Dictionary(grouping: Self.shares(counts, reservations, places), by: \.generation.app)
        for share in shares.values.joined() { add(share, 1) }
    }

    /// The one that is kept, as the state is now; made if there is none.
    static func current(
        _ kept: inout ClusterPicture?, _ state: StateView, nodes: [NodeRow]
    ) throws -> ClusterPicture {
        try kept?.refresh(state, nodes: nodes)
        let current = try kept ?? ClusterPicture(state, nodes: nodes)
        kept = current
        return current
    }

    /// Remembers what has to be read again. Bounded by the apps and volumes there are.
    public mutating func note(_ touched: Touched) {
        staleApps.formUnion(touched.apps)
        staleVolumes.formUnion(touched.volumes)
        hasStaleNodes = hasStaleNodes || touched.nodes
    }

    /// Reads again what was noted.
    /// - Parameter state: with all changes that were noted, and no others.
    /// - Parameter known: the nodes of `state`, where they are at hand already.
    public mutating func refresh(_ state: StateView, nodes known: [NodeRow]? = nil) throws {
        if hasStaleNodes {
            let new = try (known ?? state.nodes()).sorted { $0.id < $1.id }
            guard new.map(\.id) == nodes.map(\.id) else {
                // Everything here goes by the places of nodes.
                self = try Self(state, nodes: new)
                return
            }
            nodes = new
            hasStaleNodes = false
        }
        for key in staleApps {
            for share in shares.removeValue(forKey: key) ?? [] { add(share, -1) }
            let new = Self.shares(try state.taskCounts(of: key), try state.reservations(of: key), places)
            if !new.isEmpty { shares[key] = new }
            for share in new { add(share, 1) }
        }
        staleApps = []
        for key in staleVolumes { volumes[key] = try state.volume(key)?.node }
        staleVolumes = []
    }

    /// In the order of `nodes`.
    var ports: [Scheduler.Ports] {
        var ports = Array(repeating: Scheduler.Ports(), count: nodes.count)
        for (place, claims) in claims { ports[place] = claims.compactMapValues(\.last) }
        return ports
    }

    private static func places(of nodes: [NodeRow]) -> [NodeID: Int] {
        Dictionary(zip(nodes.map(\.id), nodes.indices), uniquingKeysWith: { first, _ in first })
    }

    /// Tasks of nodes that are gone take nothing of anybody.
    private static func shares(
        _ counts: [TaskCountRow], _ reservations: [ReservationRow], _ places: [NodeID: Int]
    ) -> [Share] {
        let reservations = Dictionary(
            reservations.map { (Scheduler.Generation(app: $0.app, service: $0.service, number: $0.generation), $0) },
            uniquingKeysWith: { first, _ in first })
        return counts.compactMap { row in
            guard let place = places[row.node] else { return nil }
            let generation = Scheduler.Generation(app: row.app, service: row.service, number: row.generation)
            let each = reservations[generation]
            return Share(
                generation: generation, place: place,
                load: Scheduler.Load(
                    cpuMillis: row.living * (each?.cpuMillis ?? 0),
                    memoryBytes: Int64(row.living) * (each?.memoryBytes ?? 0), tasks: row.living),
                wanted: row.wanted, ports: each?.ports ?? [])
        }
    }

    /// - Parameter sign: 1 to add it, -1 to take it away.
    private mutating func add(_ share: Share, _ sign: Int) {
        loads[share.place].cpuMillis += sign * share.load.cpuMillis
        loads[share.place].memoryBytes += Int64(sign) * share.load.memoryBytes
        loads[share.place].tasks += sign * share.load.tasks
        for port in share.ports {
            var owners = claims[share.place]?[port] ?? []
            if sign > 0 { owners.append(share.generation) } else { owners.removeAll { $0 == share.generation } }
            owners.sort { ($0.app, $0.service, $0.number) < ($1.app, $1.service, $1.number) }
            claims[share.place, default: [:]][port] = owners.isEmpty ? nil : owners
            if claims[share.place]?.isEmpty ?? false { claims[share.place] = nil }
        }
        guard share.wanted > 0 else { return }
        let left = (running[share.generation]?[share.place] ?? 0) + sign * share.wanted
        running[share.generation, default: [:]][share.place] = left == 0 ? nil : left
        if running[share.generation]?.isEmpty ?? false { running[share.generation] = nil }
    }
}
