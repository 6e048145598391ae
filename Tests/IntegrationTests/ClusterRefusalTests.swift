// SPDX-License-Identifier: Apache-2.0
import TestSupport
import Testing

extension Clusters {
    /// What does not belong to the cluster is refused with a clear line, and the cluster goes on.
    @Suite struct Refusal {
        @Test func `strangers in place of a member are refused and the others go on`() async throws {
            try await withTestCluster("stranger") { cluster in
                try await cluster.waitWritable()
                try await cluster.kill9(2)
                let foreign = try await TestAuthority(in: cluster.directory.path, name: "foreign")
                let (own, other) = (cluster.authority, try await foreign.issue("c"))
                let real = try await own.issue("c", as: "again")
                let cases = [
                    (
                        "a foreign certificate", "not of this cluster's authority",
                        TestCluster.peerList(own: "c", nodes: 3, authority: foreign.certificate, certificate: other)
                    ),
                    (
                        "another cluster", "cluster `other`",
                        TestCluster.peerList(
                            own: "c", nodes: 3, clusterID: "other", authority: own.certificate, certificate: real)
                    ),
                    (
                        "an empty data directory", "came back with an empty data directory",
                        TestCluster.peerList(own: "c", nodes: 3, authority: own.certificate, certificate: real)
                    ),
                ]
                for (place, (name, says, list)) in cases.enumerated() {
                    let stranger = try cluster.stranger("x\(place)", inPlaceOf: 2, peers: list)
                    try stranger.launch()
                    for member in 0...1 {
                        try await eventually("\(TestCluster.name(member)) speaks of \(name)") {
                            cluster.members[member].log.contains(says)
                        }
                        try await cluster.waitWritable(through: [member])
                        // Both sides dial for each of their streams; each says so once, however often it tries.
                        let lines = cluster.members[member].log.split(separator: "\n").filter { $0.contains(says) }
                        #expect(lines.count <= 4, "\(name): \(lines)")
                        try await eventually("its status names the member and says so") {
                            let view = try await cluster.members[member].json("cluster", "status")
                            let refusals = view["members"].array.filter { $0["refusal"].string?.contains(says) == true }
                            guard refusals.map({ $0["name"].string }) == ["c"] else { throw TestFailure("\(view)") }
                            return true
                        }
                        let text = try await cluster.members[member].cli("cluster", "status").checked().stdout
                        #expect(text.contains("c: "), "\(text)")
                    }
                    if name == "an empty data directory" {
                        // Told by two members on several streams each, it says so once.
                        let said = "the cluster does not take this member any more"
                        try await eventually("the stranger knows") { stranger.log.contains(said) }
                        #expect(stranger.log.split(separator: "\n").filter { $0.contains(said) }.count == 1)
                    }
                    try await stranger.kill9()
                }
                try await cluster.start([2])
                try await cluster.waitWritable()
                try await cluster.expectEqual()
                let members = try await cluster.members[0].json("cluster", "status")["members"].array
                #expect(members.allSatisfy { $0["refusal"].string == nil }, "\(members)")
            }
        }

        @Test func `nonsense at the members' port ends a connection and nothing else`() async throws {
            try await withTestCluster("nonsense") { cluster in
                try await cluster.waitWritable()
                try await cluster.kill9(2)
                let issued = try await cluster.authority.issue("c", as: "again")
                let before = try (0...1).map { (cluster.members[$0].pid, try memory(cluster.members[$0])) }
                // Little-endian length, kind, payload; kind 1 is a hello.
                let nonsense: [(secured: Bool, certified: Bool, bytes: String)] = [
                    (false, false, "os.urandom(100_000)"),
                    (false, false, "b''"),
                    (true, false, "b'hello'"),
                    (true, true, "(1 << 30).to_bytes(4, 'little') + b'\\x01' + b'x' * 1_000_000"),
                    (true, true, "b'\\xff\\xff\\xff\\xff\\x10' + b'x' * 1_000_000"),
                    (true, true, "(100).to_bytes(4, 'little') + b'\\x01abc'"),
                    (true, true, "b'\\xa5' * 100_000"),
                ]
                for member in 0...1 {
                    let lines = nonsense.map { item in
                        "knock('\(TestCluster.address(member))', \(item.secured ? "True" : "False"), "
                            + "\(item.certified ? "('\(issued.certificate)', '\(issued.key)')" : "None"), \(item.bytes))"
                    }
                    let script = Self.knock + "for _ in range(20):\n    " + lines.joined(separator: "\n    ") + "\n"
                    try await cluster.hub.run(["python3", "-c", script], timeout: .seconds(60)).checked()
                }
                try await cluster.waitWritable(through: [0, 1])
                for (member, (pid, bytes)) in before.enumerated() {
                    #expect(cluster.members[member].pid == pid && cluster.members[member].isRunning)
                    let grown = try memory(cluster.members[member]) - bytes
                    #expect(grown < 64 << 20, "\(TestCluster.name(member)) grew by \(grown >> 20) MiB")
                    let log = cluster.members[member].log
                    #expect(log.contains("connection is not taken"))
                    // Each kind of nonsense is said once, not every time.
                    let lines = log.split(separator: "\n").filter { $0.contains("connection is not taken") }
                    #expect(lines.count <= 4, "\(lines.joined(separator: "\n"))")
                }
                try await cluster.start([2])
                try await cluster.waitWritable()
            }
        }

        @Test func `the data of another node, cluster or version is refused by name`() async throws {
            try await withTestCluster("notmine") { cluster in
                try await cluster.waitWritable()
                try await cluster.kill9([0, 2])
                let c = cluster.members[2]
                let good = try c.directory.read("peers.json")

                let asA = try cluster.stranger(
                    "x0", inPlaceOf: 0, peers: try cluster.members[0].directory.read("peers.json"))
                try await Shell.run(["cp", "-a", c.dataDirectory, asA.dataDirectory]).checked()
                try await refused(asA, "belongs to node `c`")

                try c.directory.write(good.replacing("\"test\"", with: "\"other\""), to: "peers.json")
                try await refused(c, "belongs to cluster `test`")
                try c.directory.write(good, to: "peers.json")

                try await setVersion(of: c, "schema_version + 90")
                try await refused(c, "the state was written with schema")
                try await setVersion(of: c, "schema_version - 90")

                try await cluster.start([0, 2])
                try await cluster.waitWritable()
                try await cluster.expectEqual()
            }
        }

        /// An empty log would have forgotten its votes, and could vote again in a term it voted in.
        @Test func `a member without its log does not start, and is itself again with it`() async throws {
            try await withTestCluster("nolog") { cluster in
                try await cluster.waitWritable()
                try await cluster.kill9(2)
                let c = cluster.members[2], data = c.dataDirectory
                func shell(_ command: String) async throws { try await Shell.run(["sh", "-c", command]).checked() }

                try await shell("mv '\(data)/log' '\(data)/away'")
                try await refused(c, "the log is missing")
                // Nor without anything it has applied.
                try await shell("mkdir '\(data)/held' && mv '\(data)'/state.sqlite* '\(data)/held'")
                try await refused(c, "the log is missing")
                try await refused(c, "hint: put it back")
                try await cluster.waitWritable(through: [0, 1])

                // The log is enough: the state is made anew from it.
                try await shell("rmdir '\(data)/log' && mv '\(data)/away' '\(data)/log'")
                try await cluster.start([2])
                try await cluster.waitWritable()
                try await cluster.expectEqual()
            }
        }

        private func refused(_ daemon: TestDaemon, _ text: String) async throws {
            try daemon.launch()
            let status = try await daemon.waitEnd()
            #expect(status != 0)
            #expect(daemon.logTail(3).contains(text), "\(daemon.logTail(5))")
        }

        private func setVersion(of daemon: TestDaemon, _ value: String) async throws {
            let change = """
                import sqlite3
                state = sqlite3.connect("\(daemon.dataDirectory)/state.sqlite")
                state.execute("UPDATE meta SET schema_version = \(value)")
                state.commit()
                """
            try await Shell.run(["python3", "-c", change]).checked()
        }

        /// Resident memory in bytes.
        private func memory(_ daemon: TestDaemon) throws -> Int {
            guard let pid = daemon.pid, let bytes = Host.residentBytes(pid) else { throw TestFailure("no process") }
            return bytes
        }

        /// A client that sends bytes and waits until the other side hangs up.
        private static let knock = """
            import os, socket, ssl

            def knock(address, secured, certificate, data):
                stream = socket.create_connection((address, 4484), 5)
                try:
                    if secured:
                        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
                        if certificate: context.load_cert_chain(*certificate)
                        stream = context.wrap_socket(stream)
                    stream.sendall(data)
                    stream.shutdown(socket.SHUT_WR)
                    while stream.recv(65536): pass
                except OSError: pass
                finally: stream.close()


            """
    }
}
