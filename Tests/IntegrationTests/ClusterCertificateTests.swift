// SPDX-License-Identifier: Apache-2.0
import Glibc
import TestSupport
import Testing

extension Clusters {
    @Suite struct Certificates {
        @Test func `renewed certificates are taken up without ending a connection, bad ones are not`() async throws {
            try await withTestCluster("renew") { cluster in
                try await cluster.waitWritable()
                let a = cluster.members[0]
                let files = TestAuthority.Issued(
                    certificate: cluster.authority.directory + "/a.pem", key: cluster.authority.directory + "/a.key")
                let first = try await shown(by: 0, cluster)
                let told = await cluster.status(0)?["term"].int
                let lines = cluster.members.map { ended($0.log) }

                let renewed = try await cluster.authority.issue("a", as: "renewed")
                let copy = "cp '\(renewed.certificate)' '\(files.certificate)' && cp '\(renewed.key)' '\(files.key)'"
                try await Shell.run(["sh", "-c", copy]).checked()
                a.signal(SIGHUP)
                try await eventually("it says so") { a.log.contains("certificates are read again") }
                let second = try await shown(by: 0, cluster)
                #expect(first != second && !second.isEmpty, "new connections see the old certificate")
                #expect(cluster.members.map { ended($0.log) } == lines, "a connection ended")
                #expect(await cluster.status(0)?["term"].int == told)

                // The key of another certificate.
                let other = try await cluster.authority.issue("a", as: "other")
                try await Shell.run(["cp", other.key, files.key]).checked()
                a.signal(SIGHUP)
                try await eventually("it says what is wrong") {
                    a.log.contains("certificates cannot be used")
                        && a.log.contains("does not belong to the certificate")
                }
                #expect(try await shown(by: 0, cluster) == second)
                #expect(a.isRunning)

                // A member that connects anew takes what is shown now.
                try await cluster.kill9(1)
                try await cluster.start([1])
                try await cluster.waitWritable()
            }
        }

        private func ended(_ log: String) -> Int {
            log.split(separator: "\n").filter { $0.contains("connection ended") }.count
        }

        /// SHA-256 of the certificate a member shows whoever knocks.
        private func shown(by member: Int, _ cluster: TestCluster) async throws -> String {
            let script = """
                import hashlib, socket, ssl
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
                raw = socket.create_connection(("\(TestCluster.address(member))", 4484), 5)
                print(hashlib.sha256(context.wrap_socket(raw).getpeercert(True)).hexdigest())
                """
            return try await cluster.hub.run("python3", "-c", script).checked().stdout
        }
    }
}
