// SPDX-License-Identifier: Apache-2.0
internal import NIOCore
internal import NIOSSL

/// Errors of a connection in words an operator can act on.
enum TLSFault {
    static func explain(_ error: any Error) -> PeerError {
        if let error = error as? PeerError { return error }
        if let error = error as? NIOSSLError {
            switch error {
            case .uncleanShutdown: return PeerError(.connectionLost, "the other side hung up")
            case .handshakeFailed(let inner): return handshake(inner)
            default: return PeerError(.insecure, "TLS failed: \(error)")
            }
        }
        if let error = error as? BoringSSLError { return handshake(error) }
        if error is NIOSSLCloseTimedOutError { return PeerError(.connectionLost, "the other side did not say goodbye") }
        if let error = error as? IOError { return PeerError(.connectionLost, "the connection broke: \(error)") }
        return PeerError(.connectionLost, "the connection broke: \(error)")
    }

    private static let causes: [(mark: String, text: String)] = [
        ("ALERT_CERTIFICATE_EXPIRED", "the other side finds this member's certificate expired or not yet valid"),
        ("ALERT_UNKNOWN_CA", "the other side does not know the authority of this member's certificate"),
        ("ALERT_CERTIFICATE_REQUIRED", "the other side wants a certificate and was shown none"),
        ("ALERT_UNSUPPORTED_CERTIFICATE", "the other side finds this member's certificate not made for this use"),
        ("ALERT_BAD_CERTIFICATE", "the other side does not accept this member's certificate"),
        ("ALERT_CERTIFICATE_UNKNOWN", "the other side does not accept this member's certificate"),
        ("ALERT_CERTIFICATE_REVOKED", "the other side finds this member's certificate revoked"),
        ("ALERT_PROTOCOL_VERSION", "the two sides have no TLS version in common, 1.3 is needed"),
        (
            "CERTIFICATE_VERIFY_FAILED",
            "the certificate of the other side is not accepted: not of this cluster's authority, expired or not made for this use"
        ),
        ("PEER_DID_NOT_RETURN_A_CERTIFICATE", "the other side shows no certificate"),
        ("UNSUPPORTED_PROTOCOL", "the other side speaks an older TLS, 1.3 is needed"),
        ("WRONG_VERSION_NUMBER", "the other side does not speak TLS"),
        ("HTTP_REQUEST", "the other side speaks HTTP, not TLS"),
        ("UNEXPECTED_RECORD", "the other side does not speak TLS"),
        ("EOF during handshake", "the other side hung up during the TLS handshake"),
    ]

    private static func handshake(_ error: BoringSSLError) -> PeerError {
        let text = "\(error)"
        let known = causes.first { text.contains($0.mark) }
        return PeerError(.insecure, known?.text ?? "TLS failed: \(text.prefix(300))")
    }
}
