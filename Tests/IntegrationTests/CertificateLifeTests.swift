// SPDX-License-Identifier: Apache-2.0
import TestSupport
import Testing

extension BlackBox {
    /// Certificates and the authority are exchanged under running daemons.
    @Suite struct CertificateLife {
        @Test func `certificates and authority are exchanged while writes go on and no connection ends`() async throws {
            try await withDevCluster("certs", nodes: 3, runtime: "simulated") { cluster in
                let (first, second, third) = (cluster.nodes[0], cluster.nodes[1], cluster.nodes[2])
                let before = try await Self.known(cluster, by: third)
                #expect(before["authorities"].array.count == 1 && before["exchange"] == .null)
                #expect(before["items"].array.allSatisfy { (89...90).contains($0["days_left"].int ?? 0) }, "\(before)")
                let term = try await first.json("status")["term"].int
                let lines = cluster.nodes.map { Self.ended(cluster.log(of: $0)) }

                let load = Task { try await Self.writes(second) }
                try await eventually("writes are under way") {
                    try await first.cli("config", "get", "load").succeeded
                }
                let shownBefore = try await Self.shown(by: third, from: first)
                // One node, asked for through another.
                try await second.cli("security", "certs", "renew", "node3").checked()
                let renewed = try await Self.known(cluster, by: first)
                #expect(Self.serials(renewed)["node3"] != Self.serials(before)["node3"])
                #expect(Self.serials(renewed)["node1"] == Self.serials(before)["node1"])
                let shownNow = try await Self.shown(by: third, from: first)
                #expect(shownNow != shownBefore && !shownNow.isEmpty, "it is shown to who knocks")

                let token = try await first.json("cluster", "token", "create")["token"].string ?? ""
                try await third.cli("security", "certs", "rotate-ca", "--yes").checked()
                let after = try await Self.known(cluster, by: second)
                let authority = after["authorities"].array.first?["id"].string ?? ""
                #expect(after["authorities"].array.count == 1 && after["exchange"] == .null, "\(after)")
                #expect(authority != before["authorities"].array.first?["id"].string)
                #expect(after["items"].array.allSatisfy { $0["authority"].string == authority }, "\(after)")
                load.cancel()
                let failures = try await load.value
                #expect(failures.isEmpty, "\(failures)")
                #expect(try await first.json("status")["term"].int == term, "nobody lost sight of the leader")
                #expect(cluster.nodes.map { Self.ended(cluster.log(of: $0)) } == lines, "a connection ended")

                // New connections are made with what there is now, also by one that begins anew.
                try await cluster.kill9(second)
                try await cluster.start(second)
                try await eventually("it is back and takes writes", within: .seconds(20)) {
                    try await second.cli("config", "set", "back", "1").succeeded
                }
                // A token of the old authority is refused in words, a new one is good.
                try await third.cli("cluster", "leave", "--yes").checked()
                let refused = try await third.cli("cluster", "join", token, "--advertise", third.address)
                #expect(refused.status != 0 && refused.stderr.contains("exchanged its authority"), "\(refused)")
                let new = try await first.json("cluster", "token", "create")["token"].string ?? ""
                try await third.cli("cluster", "join", new, "--advertise", third.address).checked()
                try await cluster.waitState("ready", of: third, seenBy: first)
            }
        }

        @Test func `every command of the document works`() async throws {
            let document = try Document("docs/how-to/rotate-certificates.md")
            try await withDevCluster("rotate", nodes: 2, runtime: "simulated") { cluster in
                _ = try await Self.known(cluster, by: cluster.nodes[0])
                let programs = Repository.binary.split(separator: "/").dropLast().joined(separator: "/")
                let output = try await Shell.run(
                    ["bash", "-euxo", "pipefail", "-c", "PATH=/\(programs):$PATH\n" + document.script],
                    environment: ["HIVEMIND_SOCKET": cluster.nodes[0].socket], timeout: .seconds(120))
                #expect(output.succeeded, "\(output)")
                #expect(output.stdout.contains("hivemind cluster join hmj_"), "\(output)")
            }
        }

        @Test func `an exchange waits for a node that is down and outlives the leader`() async throws {
            try await withDevCluster("ca", nodes: 4, runtime: "simulated") { cluster in
                let (first, last) = (cluster.nodes[0], cluster.nodes[3])
                _ = try await Self.known(cluster, by: first)
                try await cluster.kill9(last)
                let late = try await first.cli("security", "certs", "rotate-ca", "--yes", "--timeout", "2s")
                #expect(late.status == 10 && late.stderr.contains("node4"), "\(late)")
                let again = try await first.cli("security", "certs", "rotate-ca", "--yes")
                #expect(again.status == 7 && again.stderr.contains("under way"), "\(again)")
                // Whoever leads now is killed; the others know how far it came.
                let name = try await first.json("status")["leader"].string
                let leader = try #require(cluster.nodes.first { $0.name == name }, "nobody leads")
                try await cluster.kill9(leader)
                try await cluster.start(leader)
                try await cluster.start(last)
                try await eventually("the exchange is at its end", within: .seconds(40)) {
                    let view = try await last.json("security", "certs", "status")
                    guard let authority = view["authorities"].array.first?["id"].string else { return false }
                    return view["exchange"] == .null && view["authorities"].array.count == 1
                        && view["items"].array.count == 4
                        && view["items"].array.allSatisfy { $0["authority"].string == authority }
                }
                try await cluster.waitState("ready", of: last, seenBy: first)
            }
        }

        /// What is known of the certificates, once every node has said what it shows.
        private static func known(_ cluster: TestDevCluster, by node: TestDevCluster.Node) async throws -> JSONValue {
            var view = JSONValue.null
            try await eventually("every node says what it shows") {
                view = try await node.json("security", "certs", "status", "--consistency", "linearizable")
                return view["items"].array.count == cluster.nodes.count
                    && view["items"].array.allSatisfy { $0["serial"].string != nil }
            }
            return view
        }

        private static func serials(_ view: JSONValue) -> [String: String] {
            Dictionary(
                view["items"].array.map { ($0["node"].string ?? "", $0["serial"].string ?? "") },
                uniquingKeysWith: { first, _ in first })
        }

        /// Writes one after another until it is cancelled; what failed.
        private static func writes(_ node: TestDevCluster.Node) async throws -> [String] {
            var (failures, count): ([String], Int) = ([], 0)
            while !Task.isCancelled {
                count += 1
                let written = try await node.cli("config", "set", "load", "\(count)")
                if !written.succeeded, !Task.isCancelled { failures.append("\(written)") }
            }
            return failures
        }

        private static func ended(_ log: String) -> [String] {
            log.split(separator: "\n").filter { $0.contains("connection ended") }.map(String.init)
        }

        /// SHA-256 of the certificate a node shows whoever knocks at its port for nodes.
        private static func shown(
            by node: TestDevCluster.Node, from other: TestDevCluster.Node
        ) async throws -> String {
            let script = """
                import hashlib, socket, ssl
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
                raw = socket.create_connection(("\(node.address)", 4484), 5)
                print(hashlib.sha256(context.wrap_socket(raw).getpeercert(True)).hexdigest())
                """
            return try await Shell.run(
                ["nsenter", "--net=/run/netns/\(other.netns)", "python3", "-c", script], timeout: .seconds(10)
            ).checked().stdout
        }
    }
}
