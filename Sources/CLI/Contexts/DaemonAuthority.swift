// SPDX-License-Identifier: Apache-2.0
internal import Daemon
internal import FoundationEssentials
internal import Model

/// Finds out which authority vouches for a cluster, before anything secret is said to it.
struct DaemonAuthority: Sendable {
    /// PEM of everything the cluster believes.
    var certificates: String
    /// Of the one that was pinned.
    var digest: String

    private struct Listed: Decodable { var authorities: [String] }

    /// Asks the cluster itself, believing nobody, and takes only an authority with the digest that is expected.
    /// - Parameters:
    ///   - digest: hexadecimal; nil takes what is there, if `accept` does.
    ///   - accept: is shown the digest when none is expected.
    static func fetch(
        _ addresses: [String], digest: String?, _ terminal: Terminal, accept: (String) throws -> Void
    ) async throws -> DaemonAuthority {
        var context = Context(name: "new", addresses: addresses, digest: "")
        let offered = try await list(context, terminal)
        guard !offered.isEmpty else {
            throw CLIError(
                .general, "\(addresses[0]) has no authority",
                hint: "is it a node of a cluster? see `hivemind cluster status` there")
        }
        let digests = try offered.map { pem in
            do { return try AuthorityPin.digest(of: pem) } catch {
                throw CLIError(.general, "the authority of \(addresses[0]) cannot be read: \(error)")
            }
        }
        if let digest {
            guard let place = digests.firstIndex(of: digest) else {
                throw CLIError(
                    .authentication,
                    "\(addresses[0]) is not the cluster that is meant: its authority has digest \(digests[0])",
                    hint: "check the address and --ca-digest; nothing secret was sent")
            }
            context.authority = offered[place]
            context.digest = digest
        } else {
            try accept(digests[0])
            context.authority = offered[0]
            context.digest = digests[0]
        }
        // Again, now from somebody who is known: all that the cluster believes, also while an authority is being exchanged.
        let all = try await list(context, terminal)
        return DaemonAuthority(certificates: all.joined(separator: "\n"), digest: context.digest)
    }

    /// Of a file with PEM.
    static func read(_ text: String, from path: String) throws(CLIError) -> DaemonAuthority {
        do {
            return DaemonAuthority(certificates: text, digest: try AuthorityPin.digest(of: text))
        } catch {
            throw .usage("\(path) holds no certificate that can be read: \(error)", hint: "it must be PEM")
        }
    }

    private static func list(_ context: Context, _ terminal: Terminal) async throws -> [String] {
        let client = Client(transport: terminal.remote(context), namespace: nil)
        let answer: Answer<Listed> = try await client.get("/v1/authority")
        return answer.value.authorities
    }
}
