// SPDX-License-Identifier: Apache-2.0
internal import NIOCore

/// A whole DNS message (RFC 1035, 4), for what is not hot: answers of upstream servers, and tests.
///
/// Decoding never trusts a number of the packet: nothing is reserved by a count, and every read is checked against
/// the bytes that are there.
struct DNSMessage: Hashable, Sendable {
    var id: UInt16 = 0
    /// The second 16 bits of the header: QR, opcode, AA, TC, RD, RA, rcode.
    var flags: UInt16 = 0
    var questions: [Question] = []
    var answers: [Record] = []
    var authorities: [Record] = []
    var additionals: [Record] = []

    struct Question: Hashable, Sendable {
        var name: DNSName
        var type: UInt16
        var dnsClass: UInt16 = DNSClass.internet
    }

    struct Record: Hashable, Sendable {
        var name: DNSName
        /// For OPT: the sender's UDP payload size.
        var dnsClass: UInt16 = DNSClass.internet
        /// Seconds. For OPT: extended rcode, version, flags.
        var ttl: UInt32
        var data: RecordData
    }

    enum RecordData: Hashable, Sendable {
        case a(UInt32)
        /// 16 bytes.
        case aaaa([UInt8])
        case soa(SOA)
        case opt([UInt8])
        /// Kept as it came; names inside may point into the packet it came from.
        case other(type: UInt16, [UInt8])
    }

    struct SOA: Hashable, Sendable {
        var primary: DNSName
        var mailbox: DNSName
        var serial: UInt32
        var refresh: UInt32
        var retry: UInt32
        var expire: UInt32
        var minimum: UInt32
    }

    var isResponse: Bool { flags & DNSFlags.response != 0 }
    var isTruncated: Bool { flags & DNSFlags.truncated != 0 }
    var isAuthoritative: Bool { flags & DNSFlags.authoritative != 0 }
    var rcode: UInt16 { flags & 0xf }
    var isEDNS: Bool { additionals.contains { if case .opt = $0.data { true } else { false } } }
}

enum DNSType {
    static let a: UInt16 = 1
    static let soa: UInt16 = 6
    static let aaaa: UInt16 = 28
    static let opt: UInt16 = 41
    static let any: UInt16 = 255
}

enum DNSClass {
    static let internet: UInt16 = 1
    static let any: UInt16 = 255
}

enum DNSFlags {
    static let response: UInt16 = 0x8000
    static let opcode: UInt16 = 0x7800
    static let authoritative: UInt16 = 0x0400
    static let truncated: UInt16 = 0x0200
    static let recursionDesired: UInt16 = 0x0100
    static let recursionAvailable: UInt16 = 0x0080
    static let checkingDisabled: UInt16 = 0x0010
}

enum DNSRcode {
    static let noError: UInt16 = 0
    static let formatError: UInt16 = 1
    static let serverFailure: UInt16 = 2
    static let noSuchName: UInt16 = 3
    static let notImplemented: UInt16 = 4
    static let refused: UInt16 = 5
}

enum DNSWireError: Error, Hashable {
    case short
    /// A length octet above 63 that is no pointer, a pointer that does not point backwards, or a name above 255 bytes.
    case badName
    /// A record's data does not have the length its type asks for.
    case badRecord
}
