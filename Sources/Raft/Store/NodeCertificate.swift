// SPDX-License-Identifier: Apache-2.0
internal import FoundationEssentials
internal import GRDB
public import Model

/// The certificate a node shows the others, as it says itself.
public struct NodeCertificate: Hashable, Codable, Sendable {
    /// Of a list of authorities a node believes.
    public static let trustedMax = 16

    /// Hexadecimal.
    public var serial: String
    /// Id of the authority that signed it.
    public var authority: String
    public var notBefore: Timestamp
    public var notAfter: Timestamp
    /// Ids of the authorities the node believes, sorted.
    public var trusted: [String]

    public init(
        serial: String, authority: String, notBefore: Timestamp, notAfter: Timestamp, trusted: [String]
    ) {
        self.serial = serial
        self.authority = authority
        self.notBefore = notBefore
        self.notAfter = notAfter
        self.trusted = trusted
    }
}

/// What is recorded of a node's certificate.
public struct CertificateRow: Hashable, Sendable {
    public var node: NodeID
    public var shown: NodeCertificate
    /// Serial of the certificate that is to be exchanged now, whatever its age; nil when nobody asked for it.
    public var renewSerial: String?
    /// When the node was first known to show it.
    public var recordedAt: Timestamp

    /// It was asked for and has not happened.
    public var isToBeRenewed: Bool { renewSerial == shown.serial }

    init(
        node: NodeID, shown: NodeCertificate, renewSerial: String?, recordedAt: Timestamp
    ) {
        self.node = node
        self.shown = shown
        self.renewSerial = renewSerial
        self.recordedAt = recordedAt
    }

    init(row: Row) throws {
        self.init(
            node: NodeID(row.text("node")),
            shown: NodeCertificate(
                serial: row.text("serial"), authority: row.text("authority"), notBefore: row.time("not_before"),
                notAfter: row.time("not_after"),
                trusted: try JSON.decode([String].self, from: Data(row.text("trusted").utf8))),
            renewSerial: row["renew_serial"], recordedAt: row.time("recorded_at"))
    }
}

/// What becomes of nodes' certificates.
public enum CertificateChange: Hashable, Codable, Sendable {
    case record(node: NodeID, NodeCertificate)
    /// These nodes are to exchange what they show now.
    case renew([NodeID])
}
