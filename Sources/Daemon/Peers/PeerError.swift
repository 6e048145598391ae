// SPDX-License-Identifier: Apache-2.0

/// Why something between two members did not work.
struct PeerError: Error, Hashable, Sendable, CustomStringConvertible {
    enum Code: String, Sendable {
        /// There is no such peer.
        case unknownPeer = "unknown_peer"
        /// No connection; nothing was sent.
        case notConnected = "not_connected"
        /// A bound is reached here or there; nothing was done.
        case busy
        /// Larger than what may be sent; nothing was sent.
        case tooLarge = "too_large"
        /// The connection ended after it was sent: done or not, nobody knows.
        case connectionLost = "connection_lost"
        /// No answer in time: done or not, nobody knows.
        case timeout
        /// The caller gave up.
        case cancelled
        /// The other side does not take this member, or this member not the other side.
        case refused
        /// The other side does not keep to the protocol.
        case protocolFault = "protocol_fault"
        /// TLS ended the connection.
        case insecure
        /// The transport is stopped.
        case stopped
    }

    var code: Code
    var message: String
    var hint: String?
    /// Of `.refused`.
    var refusal: PeerRefusal.Code?
    /// Of `.refused`: it is the other side that does not take this member.
    var isOtherSide = false

    init(_ code: Code, _ message: String, hint: String? = nil, refusal: PeerRefusal.Code? = nil) {
        self.code = code
        self.message = message
        self.hint = hint
        self.refusal = refusal
    }

    /// Certain to have had no effect on the other side: it may be tried again, elsewhere too.
    var isWithoutEffect: Bool {
        switch code {
        case .unknownPeer, .notConnected, .busy, .tooLarge, .stopped, .refused: true
        case .connectionLost, .timeout, .cancelled, .protocolFault, .insecure: false
        }
    }

    var description: String { hint.map { "\(message)\nhint: \($0)" } ?? message }
}
