// SPDX-License-Identifier: Apache-2.0
import Model
import Orchestrator
import Store
import Testing

private func node(
    _ number: Int, zone: String? = nil, labels: [String: String] = [:], taints: [String] = [],
    availability: NodeRow.Availability = .active, liveness: NodeRow.Liveness = .ready, cpuMillis: Int = 4000,
    memoryBytes: Int64 = 4 << 30
) -> NodeRow {
    var labels = labels
    labels["zone"] = zone
    let id = "\(1000 + number)"
    return NodeRow(
        id: NodeID("n\(id)"), name: "node-\(id.dropFirst())", member: UInt64(number), address: "10.0.0.1",
        subnet: IPv4Subnet(IPv4Address(value: 10 << 24 | UInt32(number) << 8), prefix: 24),
        availability: availability, liveness: liveness, labels: labels, taints: taints, cpuMillis: cpuMillis,
        memoryBytes: memoryBytes, version: "1")
}

private func service(
    _ name: String = "web", generation: Int = 1, mounts: [MountSpec] = [], resources: Resources = Resources(),
    placement: Placement? = nil
) -> ServiceRow {
    ServiceRow(
        app: ObjectKey(namespace: "default", name: name), name: name, replicas: 1, generation: generation,
        spec: ServiceSpec(name: name, image: "nginx:1.27", mounts: mounts, resources: resources, placement: placement))
}

/// Nothing in use anywhere.
private func free(_ node: NodeRow) -> Scheduler.Addresses { ([], [:]) }

private let start = Timestamp(milliseconds: 1_000_000)

private func place(
    _ service: ServiceRow, _ count: Int, on nodes: [NodeRow], loads: [NodeID: Scheduler.Load] = [:],
    running: [Scheduler.Generation: [NodeID: Int]] = [:], volumes: [ObjectKey: NodeID] = [:],
    addresses: (NodeRow) -> Scheduler.Addresses = free
) -> Scheduler.Placed {
    var scheduler = Scheduler(nodes: nodes, loads: loads, running: running, volumes: volumes, now: start)
    var random = SplitMix64(seed: 1)
    return scheduler.place(service, count: count, using: &random, addresses: addresses)
}

private func perNode(_ placed: Scheduler.Placed) -> [String: Int] {
    Dictionary(placed.tasks.map { ($0.node.raw, 1) }, uniquingKeysWith: +)
}

@Test func `tasks spread over zones first, then over nodes`() {
    let nodes = [
        node(1, zone: "eu"), node(2, zone: "eu"), node(3, zone: "eu"), node(4, zone: "us"), node(5, zone: "us"),
    ]
    let placed = place(service(), 6, on: nodes)
    #expect(placed.refusal == nil)
    #expect(perNode(placed) == ["n1001": 1, "n1002": 1, "n1003": 1, "n1004": 2, "n1005": 1])
}

@Test func `tasks of an earlier generation do not draw the new ones away`() {
    let running = [Scheduler.Generation(app: service().app, service: "web", number: 1): [node(1).id: 1, node(2).id: 1]]
    let placed = place(service(generation: 2), 2, on: [node(1), node(2)], running: running)
    #expect(perNode(placed) == ["n1001": 1, "n1002": 1])
}

@Test func `where most is left comes before where fewest tasks are`() {
    let loads = [
        node(1).id: Scheduler.Load(cpuMillis: 2000, memoryBytes: 0, tasks: 1),
        node(2).id: Scheduler.Load(cpuMillis: 100, memoryBytes: 0, tasks: 9),
    ]
    #expect(perNode(place(service(), 1, on: [node(1), node(2)], loads: loads)) == ["n1002": 1])
}

@Test func `a refusal names every node with its numbers and what would help`() {
    let nodes = [
        node(1, memoryBytes: 300 << 20), node(2, availability: .cordoned), node(3, liveness: .down),
        node(4, taints: ["gpu"]),
    ]
    let placed = place(service(resources: Resources(reservedMemoryBytes: 512 << 20)), 1, on: nodes)
    #expect(placed.tasks.isEmpty)
    #expect(placed.refusals.map(\.reason.code) == [.memoryShort, .nodeCordoned, .nodeDown, .nodeTainted])
    #expect(placed.refusals[0].reason.message == "lacks memory: 512 MiB wanted, 300 MiB of 300 MiB free")
    #expect(placed.refusals[1].reason.hint == "hivemind node uncordon node-002")
    #expect(placed.refusal?.code == .noNode)
    #expect(placed.refusal?.message.hasPrefix("none of 4 nodes fits: `node-001`: lacks memory") == true)
}

@Test func `many nodes that say the same are told together`() {
    let nodes = (1...20).map { node($0, cpuMillis: 1000) } + [node(21, availability: .drained)]
    let placed = place(service(resources: Resources(reservedCpuMillis: 1500)), 1, on: nodes)
    #expect(
        placed.refusal?.message
            == "none of 21 nodes fits: `node-001`, `node-002` and 18 more: lacks processor: 1.5 cores wanted, 1 of 1 "
            + "free; `node-021`: is drained")
}

@Test func `reservations are counted, limits are not`() {
    let nodes = [node(1, cpuMillis: 1000)]
    let reserved = place(service(resources: Resources(reservedCpuMillis: 400)), 3, on: nodes)
    #expect(reserved.tasks.count == 2)
    #expect(reserved.refusal?.code == .cpuShort)
    #expect(reserved.refusal?.message == "node `node-001`: lacks processor: 0.4 cores wanted, 0.2 of 1 free")
    #expect(place(service(resources: Resources(cpuMillis: 900)), 3, on: nodes).tasks.count == 3)
}

@Test func `what one service takes is gone for the next`() {
    var scheduler = Scheduler(nodes: [node(1, memoryBytes: 1 << 30)], now: start)
    var random = SplitMix64(seed: 1)
    let want = Resources(reservedMemoryBytes: 600 << 20)
    let first = scheduler.place(service("a", resources: want), count: 1, using: &random, addresses: free)
    let second = scheduler.place(service("b", resources: want), count: 1, using: &random, addresses: free)
    #expect(first.tasks.count == 1)
    #expect(second.refusal?.code == .memoryShort)
}

private let conditions: [(text: String, nodes: [String])] = [
    ("node.labels.disk == ssd", ["n1001"]), ("node.labels.disk != ssd", ["n1002", "n1003"]),
    ("node.hostname == node-002", ["n1002"]), ("node.id!=n1001", ["n1002", "n1003"]),
    ("node.labels.disk==hdd", ["n1002"]), ("node.role == manager", ["n1001", "n1002", "n1003"]),
    ("node.role == observer", []),
]

@Test(arguments: conditions)
func `a constraint picks its nodes`(text: String, expected: [String]) {
    let nodes = [node(1, labels: ["disk": "ssd"]), node(2, labels: ["disk": "hdd"]), node(3)]
    let placed = place(service(placement: Placement(constraints: [text], maxReplicasPerNode: 1)), 3, on: nodes)
    #expect(placed.tasks.map(\.node.raw).sorted() == expected)
}

@Test func `a tainted node takes only what tolerates every taint of it`() {
    let nodes = [node(1, taints: ["gpu", "spot"])]
    #expect(place(service(placement: Placement(tolerations: ["gpu"])), 1, on: nodes).refusal?.code == .nodeTainted)
    #expect(place(service(placement: Placement(tolerations: ["gpu", "spot"])), 1, on: nodes).tasks.count == 1)
}

@Test func `no node has more of a service than it may`() {
    let placed = place(service(placement: Placement(maxReplicasPerNode: 2)), 5, on: [node(1), node(2)])
    #expect(perNode(placed) == ["n1001": 2, "n1002": 2])
    #expect(placed.refusal?.code == .replicasPerNode)
}

@Test func `tasks follow their volume, and the first binds one that lies nowhere`() {
    let spec = service(mounts: [MountSpec(source: .volume("data"), target: "/data")])
    let key = ObjectKey(namespace: "default", name: "data")
    #expect(perNode(place(spec, 2, on: [node(1), node(2)], volumes: [key: node(2).id])) == ["n1002": 2])
    #expect(perNode(place(spec, 3, on: [node(1), node(2)])) == ["n1001": 3])
    let gone = place(spec, 1, on: [node(1), node(2, liveness: .down)], volumes: [key: node(2).id])
    #expect(gone.refusals.map(\.reason.code) == [.volumeElsewhere, .nodeDown])
    #expect(gone.refusals[0].reason.message == "volume `data` is on `node-002`")
}

@Test func `a node without free addresses is passed over, its addresses read once`() {
    var reads: [String: Int] = [:]
    let placed = place(service(), 4, on: [node(1), node(2)]) { node in
        reads[node.id.raw, default: 0] += 1
        let all = AddressPool.containerOffsets(of: node.subnet).map { node.subnet[$0] }
        return node.id.raw == "n1001" ? (Set(all), [:]) : (Set(all.dropLast(3)), [:])
    }
    #expect(perNode(placed) == ["n1002": 3])
    #expect(placed.refusal?.code == .addressExhausted)
    #expect(reads == ["n1001": 1, "n1002": 1])
}

@Test(arguments: UInt64(1)...20)
func `nothing is placed where it may not run, no address twice, and what is not placed has a reason`(seed: UInt64) {
    var random = SplitMix64(seed: seed)
    let nodes = (1...100).map { number in
        node(
            number, zone: ["a", "b", "c"].randomElement(using: &random),
            labels: ["disk": Bool.random(using: &random) ? "ssd" : "hdd"],
            taints: Int.random(in: 0..<5, using: &random) == 0 ? ["spot"] : [],
            availability: [.active, .active, .active, .cordoned, .drained].randomElement(using: &random) ?? .active,
            liveness: [.ready, .ready, .ready, .suspect, .down].randomElement(using: &random) ?? .ready)
    }
    let known = Dictionary(nodes.map { ($0.id, $0) }, uniquingKeysWith: { first, _ in first })
    var scheduler = Scheduler(nodes: nodes, now: start)
    var taken: Set<IPv4Address> = []
    var memory: [NodeID: Int64] = [:]
    for number in 0..<200 {
        let want = Int64.random(in: 1...512, using: &random) << 20
        let limit = Int.random(in: 1...3, using: &random)
        let spec = service(
            "app-\(number)", resources: Resources(reservedMemoryBytes: want),
            placement: Placement(
                constraints: number.isMultiple(of: 2) ? ["node.labels.disk == ssd"] : [],
                tolerations: number.isMultiple(of: 3) ? ["spot"] : [], maxReplicasPerNode: limit))
        let count = Int.random(in: 1...50, using: &random)
        let placed = scheduler.place(spec, count: count, using: &random, addresses: free)
        #expect((placed.tasks.count == count) == (placed.refusal == nil), "seed \(seed)")
        if placed.tasks.count < count { #expect(placed.refusals.count == nodes.count, "seed \(seed)") }
        for (id, tasks) in perNode(placed) {
            #expect(tasks <= limit, "seed \(seed)")
            guard let node = known[NodeID(id)] else {
                Issue.record("seed \(seed): no node \(id)")
                continue
            }
            #expect(node.liveness == .ready && node.availability == .active, "seed \(seed)")
            #expect(node.taints.isEmpty || number.isMultiple(of: 3), "seed \(seed)")
            #expect(!number.isMultiple(of: 2) || node.labels["disk"] == "ssd", "seed \(seed)")
            memory[node.id, default: 0] += want * Int64(tasks)
            #expect(memory[node.id] ?? 0 <= node.memoryBytes, "seed \(seed)")
        }
        for task in placed.tasks {
            #expect(taken.insert(task.address).inserted, "seed \(seed)")
            #expect(known[task.node]?.subnet.contains(task.address) == true, "seed \(seed)")
        }
    }
}

@Test func `the same picture gives the same tasks, in whatever order the nodes came`() {
    let nodes = (1...30).map { node($0, zone: "\($0 % 3)") }
    #expect(place(service(), 40, on: nodes).tasks == place(service(), 40, on: nodes.reversed()).tasks)
}

@Test func `labels asked for come before zones, a group within a group`() {
    let nodes = [
        node(1, zone: "a", labels: ["rack": "1"]), node(2, zone: "a", labels: ["rack": "1"]),
        node(3, zone: "b", labels: ["rack": "1"]), node(4, zone: "b", labels: ["rack": "2"]), node(5),
    ]
    let spread = Placement(spread: ["rack"])
    // Three groups: rack 1 with zones a and b, rack 2, and the node without a rack.
    #expect(
        perNode(place(service(placement: spread), 6, on: nodes))
            == ["n1001": 1, "n1003": 1, "n1004": 2, "n1005": 2])
}

/// Every reason a node may have, with its numbers and the command that helps.
private let obstacles: [(node: NodeRow, service: ServiceRow, code: Reason.Code, message: String, hint: String?)] = {
    let volume = [MountSpec(source: .volume("data"), target: "/data")]
    return [
        (
            node(1, liveness: .suspect), service(), .nodeDown, "does not answer right now",
            "hivemind why node node-001"
        ),
        (
            node(1, liveness: .down), service(), .nodeDown, "is down",
            "start its daemon, or if it is gone for ever: hivemind node remove node-001"
        ),
        (
            node(1, availability: .cordoned), service(), .nodeCordoned, "is cordoned", "hivemind node uncordon node-001"
        ),
        (
            node(1, availability: .drained), service(), .nodeCordoned, "is drained", "hivemind node uncordon node-001"
        ),
        (
            node(1), service(placement: Placement(constraints: ["node.labels.disk == ssd"])), .constraintUnmet,
            "does not meet `node.labels.disk == ssd`", "hivemind node label node-001 disk=ssd"
        ),
        (
            node(1, labels: ["disk": "hdd"]), service(placement: Placement(constraints: ["node.labels.disk != hdd"])),
            .constraintUnmet, "does not meet `node.labels.disk != hdd`", "hivemind node label node-001 disk-"
        ),
        (
            node(1, taints: ["gpu"]), service(), .nodeTainted, "has the taint `gpu`",
            "let the service tolerate it (--toleration gpu), or: hivemind node taint node-001 gpu-"
        ),
        (
            node(1), service(mounts: volume), .volumeElsewhere, "volume `data` is on `node-002`",
            "hivemind why node node-002"
        ),
        (
            node(1), service(placement: Placement(maxReplicasPerNode: 1)), .replicasPerNode,
            "has 1 of it already, the most it may have", "raise --max-per-node, or add a node"
        ),
        (
            node(1, cpuMillis: 500), service(resources: Resources(reservedCpuMillis: 1000)), .cpuShort,
            "lacks processor: 1 cores wanted, 0.5 of 0.5 free",
            "reserve less (--reserve-cpu), scale something down, or add a node"
        ),
        (
            node(1, memoryBytes: 64 << 20), service(resources: Resources(reservedMemoryBytes: 1 << 30)), .memoryShort,
            "lacks memory: 1024 MiB wanted, 64 MiB of 64 MiB free",
            "reserve less (--reserve-memory), scale something down, or add a node"
        ),
    ]
}()

@Test(arguments: obstacles.indices)
func `each refusal says what, with numbers, and which command helps`(index: Int) {
    let (refusing, wanted, code, message, hint) = obstacles[index]
    let home = node(2, availability: .drained)
    let scheduler = Scheduler(
        nodes: [refusing, home],
        running: [Scheduler.Generation(app: wanted.app, service: wanted.name, number: 1): [refusing.id: 1]],
        volumes: [ObjectKey(namespace: "default", name: "data"): home.id], now: start)
    let verdict = scheduler.verdicts(on: wanted).first { $0.node.id == refusing.id }
    #expect(verdict?.reason == Reason(code, message, hint: hint))
    #expect(scheduler.refusal(of: wanted) != nil)
}
