// SPDX-License-Identifier: Apache-2.0
internal import FoundationEssentials
internal import Logging
internal import ServiceLifecycle
internal import UnixSignals

/// SIGHUP: certificate, key and authority are read again, for connections to come. Open ones stay as they are. A node
/// that has none goes on, too: whoever reloads every service of a machine does not mean to stop this one.
struct CertificateReload: Service {
    let transport: PeerTransport?
    let log: Logger

    func run() async throws {
        for await _ in await UnixSignalsSequence(trapping: .sighup).cancelOnGracefulShutdown() {
            guard let transport else {
                log.info("there are no certificates to read again: this node is alone")
                continue
            }
            do {
                try await transport.reloadCertificates()
                log.info(
                    "certificates are read again",
                    metadata: ["valid until": "\(transport.certificateExpiry.formatted(.iso8601))"])
            } catch {
                log.error(
                    "certificates cannot be used, those read before stay in use", metadata: ["error": "\(error)"])
            }
        }
    }
}
