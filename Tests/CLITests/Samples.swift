// SPDX-License-Identifier: Apache-2.0
import Model

/// Views as a daemon sends them.
enum Sample {
    static let start = Timestamp(milliseconds: FakeTerminal.now.milliseconds - 3_600_000 * 5)

    static func app(
        _ name: String = "web", namespace: String = "default", status: AppView.Status = .running, ready: Int = 3,
        desired: Int = 3, reason: Reason? = nil, rollout: RolloutView? = nil, release: Int = 2
    ) -> AppView {
        let ports = [
            PortView(hostPort: 8080, containerPort: 80, protocol: .tcp, service: name),
            PortView(hostPort: 5353, containerPort: 53, protocol: .udp, service: name),
        ]
        let counts = ReplicaCounts(desired: desired, running: ready, ready: ready)
        return AppView(
            name: name, namespace: namespace, version: 41, release: release, image: "nginx:1.27", status: status,
            reason: reason, replicas: counts, vip: IPv4Address("10.211.0.5"), ports: ports,
            services: [service(name, namespace: namespace, counts: counts, ports: ports)], rollout: rollout,
            createdAt: start, updatedAt: start + 60_000)
    }

    static func service(
        _ name: String, namespace: String = "default", counts: ReplicaCounts, ports: [PortView]
    ) -> ServiceView {
        let spec = ServiceSpec(
            name: name, image: "nginx:1.27", replicas: counts.desired, environment: ["LEVEL": "info", "EMPTY": ""],
            labels: ["tier": "front"],
            mounts: [
                MountSpec(source: .volume("data"), target: "/data"),
                MountSpec(source: .tmpfs(sizeBytes: 64 << 20), target: "/tmp"),
            ],
            resources: Resources(cpuMillis: 1500, memoryBytes: 256 << 20))
        return ServiceView(
            name: name, app: name, namespace: namespace, version: 41, image: "nginx:1.27",
            imageDigest: "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", replicas: counts,
            vip: IPv4Address("10.211.0.5"), endpointMode: .vip,
            endpoints: [IPv4Address(value: 0x0AD2_0002), IPv4Address(value: 0x0AD2_0003)], ports: ports, reason: nil,
            spec: spec)
    }

    static func task(
        _ id: String, state: String = "running", reason: Reason? = nil, createdAt: Timestamp = start,
        restarts: Int = 0, namespace: String = "default", release: Int = 2
    ) -> TaskView {
        TaskView(
            id: TaskID(id), app: "web", namespace: namespace, service: "web", node: "alpha", state: state,
            ready: state == "running", address: state == "running" ? IPv4Address("10.210.0.2") : nil,
            containerId: ContainerID(task: TaskID(id), attempt: restarts), pid: state == "running" ? 4711 : nil,
            restarts: restarts, exitCode: state == "failed" ? 127 : nil, reason: reason, image: "nginx:1.27",
            release: release, startedAt: state == "running" ? createdAt + 1000 : nil, createdAt: createdAt)
    }

    static func rollout(
        _ state: RolloutView.State, updated: Int = 1, reason: Reason? = nil, failedTask: TaskID? = nil
    ) -> RolloutView {
        RolloutView(
            id: "op1", state: state, release: 2, updated: updated, total: 3, reason: reason, failedTask: failedTask,
            startedAt: FakeTerminal.now, endedAt: state == .running ? nil : FakeTerminal.now + 2000)
    }

    static func operation(_ rollout: RolloutView) -> OperationView {
        OperationView(id: "op1", kind: "deploy", app: "web", namespace: "default", rollout: rollout)
    }

    static func list<Item: Codable & Hashable & Sendable>(_ items: Item...) -> ItemList<Item> {
        ItemList(items: items, index: 57)
    }

    static let node = NodeView(
        id: "knodeabcdefg", name: "alpha", address: "192.0.2.10", state: "ready", role: "voter", leader: true,
        subnet: IPv4Subnet(IPv4Address(value: 0x0AD2_0000), prefix: 24), labels: ["zone": "a"],
        capacity: NodeResources(cpuMillis: 4000, memoryBytes: 8 << 30, tasks: 250),
        allocated: NodeResources(cpuMillis: 1500, memoryBytes: 768 << 20, tasks: 3), appliedIndex: 57,
        version: "0.1.0", runtime: runtime)

    static let runtime = RuntimeInfo(
        kind: "containerd", version: "1.6.20", address: "/var/lib/hivemind/containerd/containerd.sock", isReady: true,
        conditions: ["cgroups are hybrid"])

    static let status = StatusView(
        node: "alpha", role: "voter", term: 2, appliedIndex: 57, commitIndex: 57, leader: "alpha", version: "0.1.0",
        runtime: runtime, apps: 1, tasksRunning: 3, uptimeSeconds: 90_000,
        log: LogStatusView(firstIndex: 12, lastIndex: 57, bytes: 33_554_432),
        fsync: LatencyView(p50Ms: 0.84, p99Ms: 12.4, samples: 512, windowSeconds: 60), snapshot: snapshot,
        conditions: ["port 8080 is taken by another program"])

    static let member = MemberView(
        id: "knodeabcdefg", name: "alpha", address: "192.0.2.10:4484", role: "voter", matchIndex: 57, lastContactMs: 0,
        lag: 0)

    static let cluster = ClusterView(
        id: "kclusterabcd", leader: "alpha", term: 2, commitIndex: 57,
        members: [
            member,
            MemberView(
                id: "knodebbbbbbb", name: "beta", address: "192.0.2.11:4484", role: "voter", matchIndex: 57,
                lastContactMs: 43, lag: 0),
            MemberView(
                id: "knodeccccccc", name: "gamma", address: "192.0.2.12:4484", role: "standby", matchIndex: 12,
                lastContactMs: 93_000, lag: 45),
        ], nodes: 4, downAfter: "5s")

    /// As a follower sees it that hears of no leader.
    static let leaderless = ClusterView(
        id: "kclusterabcd", leader: nil, term: 7, commitIndex: 57,
        members: cluster.members.map {
            MemberView(
                id: $0.id, name: $0.name, address: $0.address, role: $0.role, matchIndex: nil, lastContactMs: nil)
        }, nodes: 4)

    static let snapshot = SnapshotView(
        name: "snapshot-0000000000000057", index: 57, term: 2, bytes: 401_408, createdAt: start,
        sha256: "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
        path: "/var/lib/hivemind/snapshots/snapshot-0000000000000057.sqlite", kind: .scheduled)

    static func event(
        _ index: UInt64, _ kind: String, _ name: String, _ change: EventView.Change = .updated,
        namespace: String? = "default",
        object: EventView.Object? = nil
    ) -> EventView {
        EventView(
            index: index, sub: 0, kind: kind, namespace: namespace, name: name, change: change, version: index,
            object: object)
    }

    static let volume = VolumeView(
        name: "data", namespace: "default", driver: "local", node: "alpha",
        path: "/var/lib/hivemind/volumes/default/data", sizeBytes: 0, usedBytes: 1_610_612_736, usedBy: ["web"],
        createdAt: start)

    static let image = ImageSummary(
        name: "docker.io/library/nginx:1.27",
        digest: "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", sizeBytes: 71_303_168,
        createdAt: start)

    static let config = ConfigView(name: "nginx/site.conf", namespace: "default", data: "listen 80;\n", version: 43)
}
