// SPDX-License-Identifier: Apache-2.0
import TestSupport
import Testing

extension Clusters {
    @Suite struct Disk {
        /// What a disk of a member holds in these tests; 256 MiB must stay free for changes to be taken.
        static let mebibytes = 512

        private static func isAboutSpace(_ condition: JSONValue) -> Bool {
            let text = condition.string ?? ""
            return text.contains("disk") && (text.contains("full") || text.contains("are free"))
        }

        @Test(.enabled(if: TestDisk.isAvailable, "\(TestDisk.needs)"), arguments: [Int64(100 << 20), 0])
        func `a follower without space holds nobody up and catches up by itself`(bytesLeft: Int64) async throws {
            try await withLoad("full", diskMebibytes: Self.mebibytes) { cluster, load, _ in
                let leader = try await cluster.waitLeader()
                let victim = cluster.indices.first { $0 != leader } ?? 0
                print("disk of follower \(TestCluster.name(victim)): \(bytesLeft) bytes left")
                try await cluster.disks[victim].fill(leaving: bytesLeft)
                try await cluster.waitWritable(through: cluster.indices.filter { $0 != victim })
                try await load.waitProgress(100)
                // It answers, and says what is wrong.
                let reply = try await cluster.members[victim].api("GET", "/v1/configs/probe?consistency=local")
                #expect(reply.status == 200, "\(reply)")
                try await eventually("its status says so") {
                    let status = await cluster.status(victim)
                    return status?["conditions"].array.contains(where: Self.isAboutSpace) ?? false
                }
                try await cluster.disks[victim].free()
                try await cluster.waitWritable()
                try await eventually("its status is well again", within: .seconds(60)) {
                    let status = await cluster.status(victim)
                    return status.map { !$0["conditions"].array.contains(where: Self.isAboutSpace) } ?? false
                }
            }
        }

        @Test(.enabled(if: TestDisk.isAvailable, "\(TestDisk.needs)"), arguments: [Int64(100 << 20), 0])
        func `a leader without space refuses writes by name or hands over, and takes them again`(
            bytesLeft: Int64
        ) async throws {
            try await withLoad("fulllead", diskMebibytes: Self.mebibytes) { cluster, load, _ in
                let leader = try await cluster.waitLeader()
                print("disk of leader \(TestCluster.name(leader)): \(bytesLeft) bytes left")
                try await cluster.disks[leader].fill(leaving: bytesLeft)
                for member in cluster.indices {
                    let name = TestCluster.name(member)
                    // Refused with a reason, or agreed because somebody else leads by now.
                    try await eventually("a write through \(name) is judged", within: .seconds(30)) {
                        let reply = try await cluster.members[member].api(
                            "PUT", "/v1/configs/full", body: "{\"data\": \"\(name)\"}")
                        let code = try? reply.json()["code"].string
                        guard reply.status == 200 || reply.status == 201 || code == "no_space" else {
                            throw TestFailure("\(reply.status) \(reply.body)")
                        }
                        return true
                    }
                    let read = try await cluster.members[member].api("GET", "/v1/configs/probe?consistency=local")
                    #expect(read.status == 200, "\(name): \(read)")
                }
                for member in cluster.indices where member != leader {
                    try await eventually("\(TestCluster.name(member)) answers current reads", within: .seconds(30)) {
                        let reply = try await cluster.members[member].api("GET", "/v1/configs/probe")
                        guard reply.status == 200 else { throw TestFailure("\(reply.status) \(reply.body)") }
                        return true
                    }
                }
                try await cluster.disks[leader].free()
                try await cluster.waitWritable(within: .seconds(60))
                try await load.waitProgress(50)
            }
        }

        /// The log has room: what is full is the disk of state.sqlite alone.
        @Test(.enabled(if: TestDisk.isAvailable, "\(TestDisk.needs)"), arguments: [false, true])
        func `a member whose state cannot grow answers reads, refuses writes by name, and catches up by itself`(
            leads: Bool
        ) async throws {
            try await withTestCluster("fullstate") { cluster in
                try await cluster.waitWritable()
                let victim = 2, others = [0, 1], name = TestCluster.name(victim)
                let daemon = cluster.members[victim], data = daemon.dataDirectory
                try await cluster.kill9(victim)
                let disk = try await TestDisk(
                    mounting: cluster.directory.file("state.img"), at: cluster.directory.file("statedisk"),
                    mebibytes: 32)
                do {
                    let moved = "mv '\(data)'/state.sqlite* '\(disk.path)' && "
                    let link = "ln -s '\(disk.path)/state.sqlite' '\(data)/state.sqlite'"
                    try await Shell.run(["sh", "-c", moved + link]).checked()
                    try await cluster.start([victim])
                    let leader = leads ? victim : 0
                    try await eventually("\(TestCluster.name(leader)) leads") {
                        guard await cluster.leader() != leader else { return true }
                        _ = try await daemon.cli("cluster", "transfer-leader", TestCluster.name(leader))
                        return false
                    }
                    try await disk.fill(leaving: 0)
                    // Through the others, who have room, until the victim's has none.
                    let value = String(repeating: "v", count: 100_000)
                    var written: [String] = []
                    try await eventually("\(name)'s state is full", within: .seconds(60), every: .zero) {
                        let key = "big\(written.count)"
                        let put = try await cluster.members[written.count % 2].api(
                            "PUT", "/v1/configs/\(key)", body: "{\"data\": \"\(value)\"}")
                        guard put.status / 100 == 2 else { throw TestFailure("\(put.status) \(put.body)") }
                        written.append(key)
                        return daemon.log.contains("the state's disk is full")
                    }
                    try await eventually("its status says so") {
                        let status = await cluster.status(victim)
                        return status?["conditions"].array.contains(where: Self.isAboutSpace) ?? false
                    }
                    #expect(!Host.hasFile("\(data)/log/ballast"), "the log's reserve was not given up")
                    // Reads of what it has go on, writes are refused by name, the others take them.
                    let read = try await daemon.api("GET", "/v1/configs/probe?consistency=local")
                    #expect(read.status == 200, "\(read)")
                    let put = try await daemon.api("PUT", "/v1/configs/full", body: "{\"data\": \"x\"}")
                    #expect(try put.status == 507 && put.json()["code"].string == "no_space", "\(put)")
                    try await cluster.waitWritable(through: others)
                    #expect(daemon.isRunning)
                    let said = daemon.log.split(separator: "\n").filter { $0.contains("the state's disk is full") }
                    #expect(said.count == 1, "\(said)")

                    try await disk.free()
                    try await cluster.waitWritable(through: [victim])
                    try await cluster.expectEqual()
                    for key in written {
                        let got = try await daemon.api("GET", "/v1/configs/\(key)?consistency=local")
                        #expect(got.status == 200, "\(key): \(got.status)")
                    }
                    try await eventually("the log's reserve is back", within: .seconds(40)) {
                        Host.hasFile("\(data)/log/ballast")
                    }
                } catch {
                    try await cluster.kill9(victim)
                    try await disk.unmount()
                    throw error
                }
                try await cluster.kill9(victim)
                try await disk.unmount()
            }
        }

        /// What a failed sync leaves on the disk nobody knows: the member must not go on as if nothing had happened.
        @Test(.enabled(if: Host.program("strace") != nil, "needs strace (scripts/setup test)"))
        func `a member whose disk fails to sync ends, the others go on, and it comes back`() async throws {
            try await withLoad("eio") { cluster, load, random in
                for round in 1...rounds(2) {
                    let leader = try await cluster.waitLeader()
                    let victim =
                        round == 1 ? leader : cluster.indices.filter { $0 != leader }.randomElement(using: &random) ?? 0
                    guard let pid = cluster.members[victim].pid else { throw TestFailure("no process") }
                    print("round \(round): syncs of \(TestCluster.name(victim)) fail")
                    let tracer = try ChildProcess(
                        [
                            "strace", "-f", "-p", "\(pid)", "-e", "trace=fdatasync,fsync,sync_file_range", "-e",
                            "inject=fdatasync,fsync,sync_file_range:error=EIO", "-o",
                            cluster.directory.file("strace.out"),
                        ], log: cluster.directory.file("strace.log"))
                    let status: Int32
                    do {
                        status = try await cluster.members[victim].waitEnd(within: .seconds(30))
                    } catch {
                        try await tracer.kill9()
                        throw error
                    }
                    #expect(status != 0)
                    let traced = try await tracer.wait(within: .seconds(10))
                    #expect(traced != nil)
                    #expect(
                        cluster.members[victim].logTail().contains("cannot be written"),
                        "\(cluster.members[victim].logTail(10))")
                    try await load.waitProgress(50)
                    try await cluster.start([victim])
                    try await load.waitProgress(20)
                }
            }
        }

        /// The image is taken while the processes stand still, so it holds what was synced and lacks what was not.
        @Test(.enabled(if: TestDisk.isAvailable, "\(TestDisk.needs)"))
        func `members come back from a power cut with all they acknowledged`() async throws {
            try await withLoad("power", diskMebibytes: Self.mebibytes) { cluster, load, random in
                for round in 1...rounds(4) {
                    let count =
                        round == 1 ? cluster.members.count : Int.random(in: 1...cluster.members.count, using: &random)
                    let victims = Array(cluster.indices.shuffled(using: &random).prefix(count)).sorted()
                    print("round \(round): no power for \(victims.map(TestCluster.name))")
                    for victim in victims { cluster.pause(victim) }
                    for victim in victims { try await cluster.disks[victim].copyImage() }
                    try await cluster.kill9(victims)
                    for victim in victims {
                        try await cluster.disks[victim].unmount()
                        try await cluster.disks[victim].useCopy()
                    }
                    try await cluster.start(victims)
                    try await load.waitProgress(100)
                }
            }
        }
    }
}
