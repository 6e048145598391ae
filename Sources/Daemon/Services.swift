// SPDX-License-Identifier: Apache-2.0
internal import ContainerNetwork
internal import ContainerRuntime
internal import Discovery
internal import Glibc
internal import Logging
internal import Model
internal import NIOPosix
internal import Orchestrator
internal import Raft
internal import ServiceLifecycle
internal import Store
internal import Synchronization
internal import Volumes

/// The daemon: wiring only. Parts are made in the order they need one another and stopped in reverse.
public enum DaemonMain {
    /// Runs until SIGTERM or SIGINT, or until the node must stop. Containers outlive it.
    ///
    /// A node that founds, joins or leaves a cluster begins another life in the same process: what it holds open belongs to
    /// the node it was. The container runtime goes on.
    /// - Throws: `DaemonError` and errors of the rooms, each saying what to do.
    public static func run(_ configuration: DaemonConfiguration) async throws {
        try configuration.validate()
        let log = makeLogger(configuration)
        raiseFileLimit()
        umask(0o027)
        let lock = try DirectoryLock(configuration.dataDirectory)
        let house = House()
        do {
            while try await live(configuration, lock, house, log) { log.info("the node begins again") }
        } catch {
            await house.close()
            throw error
        }
        await house.close()
        log.info("daemon ended; containers go on")
    }

    /// One life of the node.
    /// - Returns: whether another one follows.
    private static func live(
        _ configuration: DaemonConfiguration, _ lock: DirectoryLock, _ house: House, _ log: Logger
    ) async throws -> Bool {
        try Turn.finish(configuration.dataDirectory)
        let fixed = try configuration.peersFile.map { path in
            try PeerConfiguration.load(path: path, nodeName: configuration.nodeName ?? NodeIdentity.hostName())
        }
        let identity = try NodeIdentity(
            lock, dataDirectory: configuration.dataDirectory, name: configuration.nodeName, peers: fixed)
        let cluster = fixed ?? PeerConfiguration(identity, dataDirectory: configuration.dataDirectory)
        log.info(
            "daemon starts",
            metadata: [
                "version": "\(BuildInfo.version)", "node": "\(identity.name)", "data": "\(configuration.dataDirectory)",
            ])

        if let wanted = configuration.nodeName, fixed == nil, NodeIdentity.label(wanted) != identity.name {
            log.warning(
                "a node of a cluster keeps its name",
                metadata: ["name": "\(identity.name)", "wanted": "\(wanted)"])
        }
        // containerd takes longest: it starts while the state is opened.
        house.open { try await Rooms.make(configuration, identity.name, log) }
        let state: StateMachine
        let core: CoreOwner
        do {
            // Who comes to a cluster by a token learns from its log who decides.
            let founders = fixed?.members.map(\.id) ?? (cluster == nil ? [identity.member] : [])
            state = try StateMachine(
                path: configuration.dataDirectory + "/state.sqlite", initialMembership: Membership(voters: founders))
            if cluster?.isFixed == false, identity.formerClusterID != nil {
                // What offline verbs do to a survivor's state; the log says it, too, for whoever replays it.
                let known = try await state.read { try $0.meta().clusterID }
                if !known.isEmpty { try state.beginCluster(id: identity.clusterID) }
            }
            var generator = SystemRandomNumberGenerator()
            core = try CoreOwner(
                node: identity.id, member: identity.member, state: state,
                dataDirectory: configuration.dataDirectory, hasLog: identity.hasLog,
                mayObserve: cluster?.isFixed == false, seed: generator.next(),
                logBegun: { try identity.logBegun() }, log: log)
            if core.isObserver { try identity.observes() } else { try identity.logBegun() }
        } catch {
            if let fault = error as? Store.LogError {
                if let refusal = identity.refusal(of: fault) { throw refusal }
                if cluster != nil, fault.code == .damaged { throw try identity.quarantine(fault) }
            }
            throw error
        }
        defer { core.stop() }
        return try await serve(configuration, cluster, identity, state, core, try await house.rooms(), log)
    }

    private static func serve(
        _ configuration: DaemonConfiguration, _ cluster: PeerConfiguration?, _ identity: NodeIdentity,
        _ state: StateMachine, _ core: CoreOwner, _ rooms: Rooms, _ log: Logger
    ) async throws -> Bool {
        let meta = try await state.read { try $0.meta() }
        let ranges = meta.clusterID.isEmpty ? identity.place?.ranges ?? configuration.ranges : meta.ranges
        // One /24 for each member, in the order of their ids. A node keeps what it has: its list may change, or be gone
        // when it was recovered as the last of its cluster.
        let known = try await state.read { try $0.nodes() }.first { $0.id == identity.id }
        let order = cluster?.members.firstIndex { $0.id == identity.member } ?? 0
        let subnet =
            known?.subnet ?? identity.place?.subnet
            ?? IPv4Subnet(IPv4Address(value: ranges.containers.network.value + UInt32(order) << 8), prefix: 24)
        let overlay = identity.place.flatMap { IPv4Address($0.advertise) }.map { OverlayEnd(address: $0) }
        try await rooms.effects.networking.prepare(NodeNetwork(subnet: subnet, ranges: ranges, overlay: overlay))
        try await rooms.startNames()

        let agent = Agent(effects: rooms.effects, log: log, report: { core.observed($0) })
        let failure = Failure()
        let next = NextLife()
        let removal = Removal()
        let files = ClusterFiles(dataDirectory: configuration.dataDirectory)
        let calls = NodeCalls(
            logs: LocalLogs(own: identity.id, state: state, runtime: rooms.effects.runtime),
            networking: rooms.effects.networking, volumes: rooms.effects.volumes, files: files, log: log)
        defer { calls.disconnect() }
        var transport: PeerTransport?
        var duties: LeaderDuties?
        var follower: NodeFollower?
        if let cluster {
            let readmission = Readmission(
                clusterID: identity.clusterID, own: identity.id, name: identity.name, state: state, files: files,
                log: log)
            if !cluster.isFixed {
                try files.settle()
                try await readmission.renewIfExpired()
            }
            let made: LeaderDuties? =
                cluster.isFixed
                ? nil
                : LeaderDuties(clusterID: identity.clusterID, core: core, state: state, calls: calls, log: log)
            let peers = try await makeTransport(cluster, configuration, core, made, calls, removal, log)
            core.connect(peers)
            calls.connect(peers)
            transport = peers
            if let made {
                duties = made
                follower = NodeFollower(
                    cluster: cluster, own: identity.id, state: state, transport: peers,
                    networking: rooms.effects.networking, duties: made, calls: calls, readmission: readmission,
                    files: files, log: log)
            }
        }
        let publisher = Publisher(
            networking: rooms.effects.networking, names: rooms.effects.names, log: log,
            done: { [follower] index in
                core.programmed(index)
                follower?.isInForce(index)
            })
        let release = EndpointRelease(duties: duties, log: log, released: { core.released($0) })
        core.start(
            CoreOwner.Sinks(
                perform: { agent.perform($0) },
                publish: { publisher.publish(Publisher.Tables(names: $0, balancing: $1)) },
                inForce: { [follower] in follower?.isInForce($0) }, release: { release.want($0) },
                nodes: { [duties, follower] in
                    duties?.nodesChanged()
                    follower?.nodesChanged()
                },
                fail: { failure.report($0) }))
        let backend = NodeBackend(
            state: state, core: core, effects: rooms.effects, publisher: publisher, identity: identity,
            members: Members(cluster, transport),
            membership: NodeMembership(
                dataDirectory: configuration.dataDirectory, cluster: cluster, duties: duties,
                isRemoved: { removal.isKnown }, turn: { next.begin() }),
            calls: calls, log: log)
        let version = VersionView(version: BuildInfo.version, api: BuildInfo.apiVersion)
        let metrics = APIMetrics()
        let api = APIServer(
            socketPath: configuration.socketPath, dataDirectory: configuration.dataDirectory, backend: backend,
            logger: log, version: version, metrics: metrics)
        let bootstrap = Bootstrap(
            core: core, state: state, log: log,
            cluster: identity.place == nil ? InitializeCluster(clusterID: identity.clusterID, ranges: ranges) : nil,
            succession: identity.formerClusterID.map {
                SucceedCluster(clusterID: identity.clusterID, previousClusterID: $0)
            },
            node: thisNode(identity, cluster, subnet: subnet))

        var services: [ServiceGroupConfiguration.ServiceConfiguration] = [
            .init(service: publisher), .init(service: release), .init(service: agent), .init(service: failure),
            .init(service: next, successTerminationBehavior: .gracefullyShutdownGroup), .init(service: bootstrap),
            .init(service: api), .init(service: CertificateReload(transport: transport, log: log)),
            .init(service: MemoryRest(log: log)),
            .init(
                service: CoreService(
                    core: core, transport: transport, compareInterval: configuration.compareInterval,
                    snapshotInterval: configuration.snapshotInterval)),
        ]
        if let transport {
            services.insert(.init(service: transport), at: 0)
        }
        if let transport, let address = cluster?.api {
            services.append(
                .init(
                    service: TLSListener(
                        address: address, dataDirectory: configuration.dataDirectory, backend: backend,
                        certificates: transport.certificates, eventLoopGroup: MultiThreadedEventLoopGroup.singleton,
                        logger: log, version: version, limits: RequestLimits(), metrics: metrics)))
        }
        if let duties { services.append(.init(service: duties)) }
        if let follower { services.append(.init(service: follower)) }
        if let cluster, !cluster.isFixed, let transport {
            services.append(
                .init(
                    service: Succession(
                        cluster: cluster, own: identity.id, dataDirectory: configuration.dataDirectory, core: core,
                        state: state, certificates: transport.certificates, turn: { next.begin() }, log: log)))
        }
        var group = ServiceGroupConfiguration(
            services: services,
            gracefulShutdownSignals: [.sigterm, .sigint], logger: quiet(log))
        group.maximumGracefulShutdownDuration = .seconds(10)
        try await ServiceGroup(configuration: group).run()
        return next.hasBegun
    }

    /// How this member reaches the others and is reached.
    private static func makeTransport(
        _ cluster: PeerConfiguration, _ configuration: DaemonConfiguration, _ core: CoreOwner,
        _ duties: LeaderDuties?, _ calls: NodeCalls, _ removal: Removal, _ log: Logger
    ) async throws -> PeerTransport {
        let incarnations = try KnownIncarnations(dataDirectory: configuration.dataDirectory)
        let others = cluster.members.filter { $0.id != cluster.own.id }
        return PeerTransport(
            listen: cluster.listen,
            directory: PeerDirectory(
                clusterID: cluster.clusterID, own: cluster.own, incarnation: incarnations.own, peers: others),
            certificates: try await PeerCertificates.load(cluster.files, name: cluster.own.name),
            incarnations: incarnations, group: MultiThreadedEventLoopGroup.singleton,
            events: PeerEvents(
                messages: { core.consensus.receive($0) },
                disconnected: { core.consensus.put(.unreachable($0)) },
                refused: { if $1 == .removed { removal.learn() } },
                request: { member, request in
                    await core.answer(
                        request, from: member, call: { await duties?.answer($0, from: member) ?? [] },
                        node: { await calls.answer($0, from: member) }) ?? []
                },
                snapshot: { try await core.transfers.receive(from: $0, $1) }),
            log: log)
    }

    // MARK: - This machine

    private static func thisNode(
        _ identity: NodeIdentity, _ cluster: PeerConfiguration?, subnet: IPv4Subnet
    ) -> NodeRow {
        NodeRow(
            id: identity.id, name: identity.name, member: identity.member,
            address: cluster?.own.address.host ?? primaryAddress(),
            peerAddress: cluster.map { "\($0.own.address)" } ?? "",
            apiAddress: cluster?.api.map { "\($0)" } ?? "", subnet: subnet,
            cpuMillis: max(1, sysconf(Int32(_SC_NPROCESSORS_ONLN))) * 1000,
            memoryBytes: Int64(sysconf(Int32(_SC_PHYS_PAGES))) * Int64(sysconf(Int32(_SC_PAGESIZE))),
            version: BuildInfo.version)
    }

    /// First IPv4 address of an interface that is up, not loopback and not ours.
    static func primaryAddress() -> String { interfaceAddresses().first { !$0.isLoopback }?.address ?? "127.0.0.1" }

    /// IPv4 addresses of this machine, those of loopback last.
    static func ownAddresses() -> [String] {
        let all = interfaceAddresses()
        return (all.filter { !$0.isLoopback } + all.filter(\.isLoopback)).map(\.address)
    }

    private static func interfaceAddresses() -> [(address: String, isLoopback: Bool)] {
        var first: UnsafeMutablePointer<ifaddrs>?
        guard getifaddrs(&first) == 0 else { return [] }
        defer { freeifaddrs(first) }
        var found: [(address: String, isLoopback: Bool)] = []
        var next = first
        while let entry = next {
            next = entry.pointee.ifa_next
            let name = String(cString: entry.pointee.ifa_name)
            guard let address = entry.pointee.ifa_addr, address.pointee.sa_family == sa_family_t(AF_INET),
                entry.pointee.ifa_flags & UInt32(IFF_UP) != 0, !name.hasPrefix("hm")
            else { continue }
            let value = address.withMemoryRebound(to: sockaddr_in.self, capacity: 1) { $0.pointee.sin_addr.s_addr }
            let own = IPv4Address(value: UInt32(bigEndian: value))
            // Ours are on `lo`, too: gateway and name server of the containers.
            if own == AddressRanges.nameServer || own == AddressRanges.gateway { continue }
            found.append((own.description, entry.pointee.ifa_flags & UInt32(IFF_LOOPBACK) != 0))
        }
        return found
    }

    private static func raiseFileLimit() {
        var limit = rlimit()
        guard getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else { return }
        limit.rlim_cur = limit.rlim_max
        setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
    }

    private static func makeLogger(_ configuration: DaemonConfiguration) -> Logger {
        var log = Logger(label: "hivemind") { StreamLogHandler.standardError(label: $0) }
        log.logLevel = Logger.Level(rawValue: configuration.logLevel) ?? .info
        return log
    }

    /// The service group's own start and stop lines say nothing ours do not.
    private static func quiet(_ log: Logger) -> Logger {
        var log = log
        log.logLevel = max(log.logLevel, .warning)
        return log
    }
}

/// The effect rooms of this node, and how to end them.
private struct Rooms: Sendable {
    var effects: Effects
    var startNames: @Sendable () async throws -> Void
    var shutdown: @Sendable () async -> Void

    static func make(
        _ configuration: DaemonConfiguration, _ nodeName: String, _ log: Logger
    ) async throws -> Rooms {
        switch configuration.runtime {
        case .simulated:
            return Rooms(
                effects: Effects(
                    runtime: SimulatedRuntime(), networking: SimulatedNetworking(),
                    volumes: SimulatedVolumes(directory: configuration.dataDirectory + "/volumes"),
                    names: SimulatedNames()),
                startNames: {}, shutdown: {})
        case .containerd:
            let runtime = try await ContainerdRuntime.start(
                ContainerdRuntimeConfiguration(
                    dataDirectory: configuration.dataDirectory, nodeName: nodeName,
                    containerdAddress: configuration.containerdAddress),
                logger: log)
            let names = DNSServer(eventLoopGroup: MultiThreadedEventLoopGroup.singleton)
            let isAnswering = Mutex(false)
            do {
                return Rooms(
                    effects: Effects(
                        runtime: runtime,
                        networking: try KernelNetworking(dataDirectory: configuration.dataDirectory),
                        volumes: LocalVolumes(directory: configuration.dataDirectory + "/volumes"), names: names),
                    startNames: {
                        guard !isAnswering.withLock({ $0 }) else { return }
                        try await names.start(address: AddressRanges.nameServer.description, port: 53)
                        isAnswering.withLock { $0 = true }
                    },
                    shutdown: {
                        await names.stop()
                        await runtime.shutdown()
                    })
            } catch {
                await runtime.shutdown()
                throw error
            }
        }
    }
}

/// The rooms, made once for all lives of the daemon.
private final class House: Sendable {
    private let making = Mutex<Task<Rooms, any Error>?>(nil)

    func open(_ make: @escaping @Sendable () async throws -> Rooms) {
        making.withLock { making in making = making ?? Task { try await make() } }
    }

    func rooms() async throws -> Rooms {
        guard let task = making.withLock({ $0 }) else { throw DaemonError("the rooms are not made") }
        return try await task.value
    }

    func close() async {
        guard let task = making.withLock({ $0 }), let rooms = try? await task.value else { return }
        await rooms.shutdown()
    }
}

/// Whether the others have said that this node was removed.
private final class Removal: Sendable {
    private let known = Mutex(false)

    var isKnown: Bool { known.withLock { $0 } }
    func learn() { known.withLock { $0 = true } }
}

/// Ends this life of the node so that another one begins.
private final class NextLife: Service {
    private let begun = Mutex(false)
    private let calls: AsyncStream<Void>
    private let input: AsyncStream<Void>.Continuation

    init() { (calls, input) = AsyncStream.makeStream(bufferingPolicy: .bufferingOldest(1)) }

    var hasBegun: Bool { begun.withLock { $0 } }

    /// The answer of who asked for it leaves first: requests under way are waited for.
    func begin() {
        begun.withLock { $0 = true }
        input.yield()
    }

    func run() async throws {
        for await _ in calls.cancelOnGracefulShutdown() { return }
    }
}

/// Ends the service group when the core cannot go on.
private final class Failure: Service {
    private let errors: AsyncStream<DaemonError>
    private let input: AsyncStream<DaemonError>.Continuation

    init() { (errors, input) = AsyncStream.makeStream(bufferingPolicy: .bufferingOldest(1)) }

    func report(_ error: DaemonError) { input.yield(error) }

    func run() async throws {
        for await error in errors.cancelOnGracefulShutdown() { throw error }
    }
}

/// What the core needs done outside of its threads, from the start of the node to its end.
private struct CoreService: Service {
    let core: CoreOwner
    let transport: PeerTransport?
    let compareInterval: Duration
    let snapshotInterval: Duration?

    func run() async throws {
        await cancelWhenGracefulShutdown {
            await withTaskGroup(of: Void.self) { group in
                group.addTask { await core.becomeCurrent() }
                group.addTask { await core.forwardOwn() }
                if let snapshotInterval { group.addTask { await core.keeper.run(every: snapshotInterval) } }
                if let transport {
                    group.addTask { await core.followLog(over: transport) }
                    group.addTask { await core.transfers.send(over: transport) }
                    group.addTask { await core.exchangeDigests() }
                    group.addTask { await core.compareStates(every: compareInterval) }
                }
            }
        }
        // Clients of the others go on at once, instead of after an election.
        if core.status.isLeader { _ = await core.handOver() }
    }
}

/// Makes the cluster of one and records this node, once the log has a leader.
private struct Bootstrap: Service {
    let core: CoreOwner
    let state: StateMachine
    let log: Logger
    /// Nil for a node that came to its cluster by a token.
    let cluster: InitializeCluster?
    /// Nil for a node whose cluster took no other's place.
    let succession: SucceedCluster?
    let node: NodeRow

    func run() async throws {
        try await cancelWhenGracefulShutdown {
            if let cluster { try await propose(.initializeCluster(cluster)) }
            if let succession { try await propose(.succeedCluster(succession)) }
            let known = try await state.read { try $0.nodes() }.first { $0.id == node.id }
            if known?.facts != node.facts { try await propose(.putNode(node)) }
            Thread.spawn { ProgramPages.release() }
            // A service that returns ends the group.
            try? await gracefulShutdown()
        }
    }

    private func propose(_ change: Change) async throws {
        while true {
            do {
                let applied = try await core.propose(change, deadline: .seconds(10))
                if case .refused(let problem) = applied.outcome {
                    throw DaemonError("this node cannot take its place: \(problem.detail)", hint: problem.hint)
                }
                return
            } catch let problem as Problem where [.noLeader, .busy, .timeout, .noSpace].contains(problem.code) {
                try await Task.sleep(for: .milliseconds(5))
            }
        }
    }
}
