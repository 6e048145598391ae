// SPDX-License-Identifier: Apache-2.0
import Foundation

/// Replicated writes and reads beside etcd's: as many members each, all on this machine, every write on disk.
///
/// Both clusters are up all the time and idle but for the one whose turn it is.
struct ConsensusBench {
    let hivemind: HivemindCluster
    let etcd: EtcdCluster
    let report: Report
    let rounds: Int
    let seconds: Int
    let objects: Int

    init(
        directory: String, binaries: String, members: Int, report: Report, rounds: Int, seconds: Int, objects: Int
    ) throws {
        hivemind = try HivemindCluster(
            directory: "\(directory)/h", hivemind: "\(binaries)/hivemind", members: members)
        etcd = try EtcdCluster(directory: "\(directory)/e", members: members)
        self.report = report
        self.rounds = rounds
        self.seconds = seconds
        self.objects = objects
    }

    private var clusters: [any StoreCluster] { [hivemind, etcd] }

    func run() throws {
        defer { for cluster in clusters { cluster.killAll() } }
        for cluster in clusters { try cluster.startAll() }
        report.note("\(hivemind.members.count) members each, \(rounds) rounds of \(seconds) s")
        try throughput()
        try memory()
        if hivemind.members.count > 1 {
            try catchUp()
            try leaderKill()
        }
        try restart()
    }

    // MARK: Requests

    private func throughput() throws {
        let puts = [
            Workload(name: "", cluster: hivemind, load: hivemind.puts),
            Workload(name: "native", cluster: etcd, load: etcd.nativePuts),
            Workload(name: "gateway", cluster: etcd, load: etcd.gatewayPuts),
        ]
        let reads = [
            Workload(name: "", cluster: hivemind, load: hivemind.reads),
            Workload(name: "native", cluster: etcd, load: etcd.nativeReads),
            Workload(name: "gateway", cluster: etcd, load: etcd.gatewayReads),
        ]
        // Every name exists before it is read.
        try hivemind.fill(count: HivemindCluster.nameCount, names: HivemindCluster.nameCount, bytes: 256)
        _ = try hivemind.puts().run(clients: 16, seconds: 2, on: hivemind)
        for clients in [1, 16, 64, 256] { try compare("put of 256 bytes", clients, puts, isWrite: true) }
        for clients in [1, 64] { try compare("linearizable read", clients, reads, isWrite: false) }
    }

    private func compare(_ what: String, _ clients: Int, _ workloads: [Workload], isWrite: Bool) throws {
        var rates = [Samples](repeating: Samples(), count: workloads.count)
        var p50 = rates, p99 = rates, processor = rates
        for round in 0..<rounds {
            for turn in workloads.indices {
                // Nobody always comes after the same one.
                let index = (turn + round) % workloads.count
                let outcome = try workloads[index].load()
                    .run(clients: clients, seconds: seconds, on: workloads[index].cluster)
                rates[index].add(outcome.perSecond)
                p50[index].add(outcome.p50Milliseconds)
                p99[index].add(outcome.p99Milliseconds)
                processor[index].add(outcome.processorMicroseconds)
            }
        }
        let many = clients == 1 ? "1 client" : "\(clients) clients"
        let native = "etcd gRPC", gateway = "etcd gateway"
        let isJudged = !isWrite || clients >= 64
        report.row(
            "\(what), \(many)", unit: "1/s", ours: rates[0], peer: (native, rates[1]), aim: isJudged ? ">= 1.0 x" : "")
        report.row(
            "\(what), \(many)", unit: "1/s", ours: rates[0], peer: (gateway, rates[2]),
            aim: isWrite && clients >= 64 ? ">= 1.5 x" : "")
        report.row(
            "\(what), \(many): p50", unit: "ms", ours: p50[0], peer: (native, p50[1]),
            aim: isWrite && clients == 1 ? "<= 1.0 x" : "")
        report.row("\(what), \(many): p99", unit: "ms", ours: p99[0], peer: (native, p99[1]))
        report.row(
            "\(what), \(many): processor time of all members", unit: "us", ours: processor[0],
            peer: (native, processor[1]))
    }

    // MARK: Memory

    private func memory() throws {
        var ours = Samples(), peers = Samples()
        for cluster in clusters {
            try cluster.fill(count: objects, names: objects, bytes: 256)
            for member in cluster.members {
                guard let pid = cluster.pid(member) else { continue }
                let resident = Memory(pid).resident
                if cluster === hivemind { ours.add(resident) } else { peers.add(resident) }
            }
        }
        report.row(
            "RSS of a member after \(objects) more writes", unit: "MB", ours: ours, peer: (etcd.name, peers),
            aim: "< 60")
    }

    // MARK: Faults

    private func catchUp() throws {
        var ours = Samples(), peers = Samples()
        for _ in 0..<3 {
            for cluster in clusters {
                let leader = try cluster.waitForLeader()
                guard let away = cluster.members.first(where: { $0 != leader }) else { continue }
                cluster.stop(away)
                try cluster.fill(count: 3200, names: 1000, bytes: 16 << 10)
                guard let goal = cluster.applied(leader) else {
                    throw BenchError("\(leader) does not say what it applied")
                }
                let began = now()
                try cluster.start(away)
                _ = try eventually("\(away) has caught up", everyMicroseconds: 5000) {
                    cluster.applied(away).map { $0 >= goal ? true : nil } ?? nil
                }
                if cluster === hivemind { ours.add(now() - began) } else { peers.add(now() - began) }
            }
        }
        report.row(
            "member that was away for 52 MB of writes: exec -> has applied them", unit: "ms", ours: ours,
            peer: (etcd.name, peers), aim: "< 10000")
    }

    private func leaderKill() throws {
        var ours = Samples(), peers = Samples()
        for _ in 0..<max(10, rounds) {
            for cluster in clusters {
                let leader = try cluster.waitForLeader()
                let others = cluster.members.filter { $0 != leader }
                let began = now()
                cluster.kill(leader)
                _ = try cluster.waitForWrites(through: others)
                if cluster === hivemind { ours.add(now() - began) } else { peers.add(now() - began) }
                try cluster.start(leader)
                _ = try eventually("\(leader) is back", everyMicroseconds: 5000) {
                    cluster.answers(leader) ? true : nil
                }
            }
        }
        report.row(
            "leader killed -> next write taken", unit: "ms", ours: ours, peer: (etcd.name, peers), aim: "< 1000")
    }

    private func restart() throws {
        var ours = Samples(), peers = Samples(), one = Samples(), onePeer = Samples()
        for _ in 0..<max(10, rounds) {
            for cluster in clusters {
                let isOurs = cluster === hivemind
                if cluster.members.count > 1 {
                    let leader = try cluster.waitForLeader()
                    let follower = cluster.members.first { $0 != leader } ?? leader
                    cluster.kill(follower)
                    let began = now()
                    try cluster.start(follower)
                    _ = try eventually("\(follower) is back", everyMicroseconds: 5000) {
                        cluster.answers(follower) ? true : nil
                    }
                    if isOurs { one.add(now() - began) } else { onePeer.add(now() - began) }
                }
                cluster.killAll()
                let began = now()
                for member in cluster.members { try cluster.start(member) }
                _ = try cluster.waitForWrites(through: cluster.members)
                if isOurs { ours.add(now() - began) } else { peers.add(now() - began) }
            }
        }
        if !one.isEmpty {
            report.row(
                "one member with \(objects) objects killed: exec -> answers a linearizable read", unit: "ms", ours: one,
                peer: (etcd.name, onePeer), aim: "< 2000")
        }
        report.row(
            "all members with \(objects) objects killed: exec -> a write is taken", unit: "ms", ours: ours,
            peer: (etcd.name, peers), aim: "< 2000")
    }
}
