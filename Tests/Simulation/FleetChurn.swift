// SPDX-License-Identifier: Apache-2.0

internal import Model
internal import Store
internal import TestSupport

/// What happens to a fleet.
extension Fleet {
    // MARK: - Beginning

    func addNode() {
        nodesMade += 1
        let number = nodesMade
        let id = NodeID("n\(1000 + number)")
        let subnet = IPv4Subnet(IPv4Address(value: 10 << 24 | 210 << 16 | UInt32(number) << 8), prefix: 24)
        propose(
            .putNode(
                NodeRow(
                    id: id, name: "node-\(1000 + number)", member: UInt64(number), address: "10.0.0.1", subnet: subnet,
                    cpuMillis: 16_000, memoryBytes: 32 << 30, version: "1")))
        var labels = ["zone": ["a", "b", "c"][number % 3], "rack": "r\(number % 10)"]
        if number % 4 != 0 { labels["disk"] = number.isMultiple(of: 2) ? "ssd" : "hdd" }
        propose(.setNode(SetNode(node: id, labels: labels, addTaints: number % 12 == 0 ? ["gpu"] : [])))
        let machine = Machine(id: id, name: "node-\(1000 + number)")
        machines[id] = machine
        wake(machine, after: 1)
    }

    /// An app of one service; which demands it makes follows from its number.
    func deploy(_ number: Int, replicas: Int, release: Int = 1) {
        var placement = Placement()
        if number % 7 == 1 { placement.constraints.append("node.labels.zone == a") }
        if number % 5 == 2 { placement.constraints.append("node.labels.disk != hdd") }
        if number % 6 == 3 { placement.tolerations = ["gpu"] }
        if number % 4 == 1 { placement.spread = ["rack"] }
        if number % 9 == 4, placement.constraints.isEmpty { placement.maxReplicasPerNode = max(2, replicas / 15) }
        var mounts: [MountSpec] = []
        if number % 8 == 7 { mounts = [MountSpec(source: .volume("data-\(number)"), target: "/data")] }
        let isGlobal = number % 40 == 10
        let name = "app-\(number)"
        let spec = ServiceSpec(
            name: name, image: "web:\(release)", imageDigest: "sha256:\(release)",
            replicas: isGlobal || !mounts.isEmpty ? 1 : replicas, mounts: mounts,
            resources: Resources(
                reservedCpuMillis: number % 3 == 0 ? 50 : nil, reservedMemoryBytes: number % 2 == 0 ? 64 << 20 : nil),
            placement: placement.isEmpty ? nil : placement, mode: isGlobal ? .global : nil)
        propose(.putApp(PutApp(spec: AppSpec(key: ObjectKey(name: name), services: [spec]))))
    }

    /// As many apps as it takes.
    func deployAll() {
        var left = size.tasks
        var number = 0
        while left > 0 {
            number += 1
            let isOne = number % 8 == 7
            let replicas = isOne ? 1 : min(left, Int.random(in: 20...200, using: &random))
            deploy(number, replicas: replicas)
            left -= replicas
        }
        appsMade = number
    }

    // MARK: - Trouble

    private func any(_ fits: (Machine) -> Bool) -> Machine? {
        machines.values.filter { !$0.isRemoved && check.nodes[$0.id] != nil && fits($0) }.sorted { $0.id < $1.id }
            .randomElement(using: &random)
    }

    func churn() throws {
        let absent = machines.values.count { !$0.isRemoved && (!$0.isUp || !$0.isReachable) }
        switch Int.random(in: 0..<100, using: &random) {
        case 0..<8:
            // Some apps grow and shrink, others change.
            let number = Int.random(in: 1...appsMade, using: &random)
            if number % 8 != 7, number % 40 != 10 {
                propose(
                    .scaleService(
                        ScaleService(
                            app: ObjectKey(name: "app-\(number)"), service: "app-\(number)",
                            replicas: Int.random(in: 0...150, using: &random))))
            }
        case 8..<11:
            let number = Int.random(in: 1...appsMade, using: &random)
            deploy(
                number, replicas: Int.random(in: 5...60, using: &random), release: Int.random(in: 1...9, using: &random)
            )
        case 11..<13:
            propose(
                .deleteApp(
                    AppChange(app: ObjectKey(name: "app-\(Int.random(in: 1...appsMade, using: &random))"))))
        case 13..<25 where absent < size.nodes / 8:
            guard let machine = any({ $0.isUp }) else { return }
            if Bool.random(using: &random) { machine.losePower() } else { machine.stop() }
        case 25..<45:
            guard let machine = any({ !$0.isUp }) else { return }
            machine.isUp = true
            try catchUp(machine)
            wake(machine, after: 1)
        case 45..<55 where absent < size.nodes / 8:
            guard let machine = any({ $0.isReachable }) else { return }
            // Cut off both ways, or only one.
            let way = Int.random(in: 0..<3, using: &random)
            machine.hears = way == 1
            machine.isHeard = way == 2
        case 55..<70:
            guard let machine = any({ !$0.isReachable }) else { return }
            machine.hears = true
            machine.isHeard = true
            try catchUp(machine)
        case 70..<74: setAvailability(.cordoned, of: .active)
        case 74..<77: setAvailability(.drained, of: .active)
        case 77..<84:
            setAvailability(.active, of: Bool.random(using: &random) ? .cordoned : .drained)
        case 84..<86 where check.nodes.count > size.nodes * 9 / 10:
            guard let machine = any({ _ in true }) else { return }
            propose(.removeNode(NodeChange(node: machine.id)))
        case 86..<89 where nodesMade < 250 && check.nodes.count < size.nodes * 11 / 10: addNode()
        case 89..<90: try changeLeader()
        case 90..<92:
            guard let machine = any({ _ in true }) else { return }
            let zone = ["a", "b", "c"].randomElement(using: &random) ?? "a"
            propose(.setNode(SetNode(node: machine.id, labels: ["zone": zone])))
        default:
            guard let machine = any({ $0.isUp && !$0.containers.isEmpty }),
                let victim = machine.running.map(\.id).sorted().randomElement(using: &random),
                let observation = machine.exit(victim, code: 137, at: time)
            else { return }
            put(.observed(machine.id, life: machine.life, observation), after: 2)
        }
    }

    private func setAvailability(_ next: NodeRow.Availability, of current: NodeRow.Availability) {
        guard let machine = any({ check.nodes[$0.id]?.availability == current }) else { return }
        propose(.setNode(SetNode(node: machine.id, availability: next)))
    }

    // MARK: - Healing

    /// What failed is tried again, as people do once the trouble is over.
    func tryAgain() throws {
        let failed = try state.read { state in
            try state.apps().filter { try !$0.deleting && state.rollout(app: $0.key)?.state == .failed }.map(\.key)
        }
        for key in failed { propose(.restartApp(AppChange(app: key))) }
    }

    /// Everything answers again; nodes stay cordoned and drained.
    func heal() throws {
        isChurning = false
        for machine in machines.values.sorted(by: { $0.id < $1.id }) where !machine.isRemoved {
            machine.hears = true
            machine.isHeard = true
            machine.isUp = true
            try catchUp(machine)
            wake(machine, after: 1)
        }
    }
}

/// From nothing to a full fleet, through trouble, to a healed one.
/// - Returns: the status of the process.
func runFleet(_ arguments: [String]) -> Int32 {
    let seed = Simulate.number("--seed", arguments, or: 1)
    var size = Fleet.Size()
    size.nodes = Int(Simulate.number("--nodes", arguments, or: 100))
    size.tasks = Int(Simulate.number("--tasks", arguments, or: 10_000))
    size.seconds = Simulate.number("--seconds", arguments, or: size.seconds)
    let clock = ContinuousClock()
    let begun = clock.now
    do {
        let fleet = try Fleet(seed: seed, size: size)
        func settle(_ milliseconds: UInt64, _ what: String) throws {
            var difference: String?
            let isDone = try fleet.run(milliseconds: milliseconds) {
                difference = try fleet.check.difference(of: fleet)
                if difference != nil { try fleet.tryAgain() }
                return difference == nil
            }
            guard isDone else {
                throw Violation(.fleetSettles, "\(what), \(milliseconds / 1_000) s later: \(difference ?? "?")")
            }
        }
        do {
            for _ in 0..<size.nodes { fleet.addNode() }
            _ = try fleet.run(milliseconds: 500) { false }
            fleet.deployAll()
            _ = try fleet.run(milliseconds: 500) { false }
            try settle(120_000, "deployed")
            let filledAt = fleet.now
            let filledIn = clock.now - begun
            fleet.isChurning = true
            fleet.put(.churn, after: 1)
            _ = try fleet.run(milliseconds: size.seconds * 1_000) { false }
            try fleet.heal()
            try settle(300_000, "healed")
            say(
                "fleet SEED=\(seed) holds: \(size.nodes) nodes, \(fleet.check.placed) tasks placed, full after \(filledAt) ms, "
                    + "\(fleet.steps) steps, trace \(String(fleet.trace, radix: 16))")
            // Apart from the line above, which is the same whenever the seed is.
            say("in \(clock.now - begun), \(filledIn) of it until it was full")
            return 0
        } catch let violation as Violation {
            say("SEED=\(seed) \(violation) at \(fleet.now) ms; replay: simulate fleet --seed \(seed)")
            return 1
        }
    } catch {
        say("SEED=\(seed) \(error)")
        return 1
    }
}
