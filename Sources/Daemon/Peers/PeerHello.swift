// SPDX-License-Identifier: Apache-2.0
internal import Raft

/// What a connection is for. Each has its own, so that nothing long ever stands before a heartbeat.
enum StreamKind: UInt8, Sendable, CaseIterable, CustomStringConvertible {
    case raft = 1
    case snapshot = 2
    case forward = 3

    var description: String {
        switch self {
        case .raft: "raft"
        case .snapshot: "snapshot"
        case .forward: "forward"
        }
    }
}

enum PeerProtocol {
    /// Versions of the protocol this build speaks.
    static let versions: ClosedRange<UInt16> = 1...1
}

/// First frame of a connection, from the member that dialled.
///
/// The range of versions comes first and keeps its place in every version, so that a stranger can be told what is wrong.
struct Hello: Hashable, Sendable {
    var versions: ClosedRange<UInt16>
    var stream: StreamKind
    var from: MemberID
    var to: MemberID
    /// Made with the sender's data directory: another one under the same id has forgotten its promises.
    var incarnation: UInt64
    var clusterID: String

    func encode(into writer: inout ByteWriter) {
        writer.put(versions.lowerBound)
        writer.put(versions.upperBound)
        writer.put(stream.rawValue)
        writer.put(from)
        writer.put(to)
        writer.put(incarnation)
        writer.putShort(clusterID)
    }

    enum Decoded: Hashable, Sendable {
        case hello(Hello)
        /// No version in common; the rest was not looked at.
        case foreignVersion(UInt16, UInt16)
        case malformed
    }

    static func decode(_ bytes: ArraySlice<UInt8>) -> Decoded {
        var reader = ByteReader(bytes)
        guard let low = reader.take(UInt16.self), let high = reader.take(UInt16.self), low <= high else {
            return .malformed
        }
        guard (low...high).overlaps(PeerProtocol.versions) else { return .foreignVersion(low, high) }
        // A later version may add fields at the end.
        guard let stream = reader.take(UInt8.self).flatMap(StreamKind.init(rawValue:)),
            let from = reader.take(UInt64.self), let to = reader.take(UInt64.self),
            let incarnation = reader.take(UInt64.self), let clusterID = reader.takeShort()
        else { return .malformed }
        return .hello(
            Hello(
                versions: low...high, stream: stream, from: from, to: to, incarnation: incarnation,
                clusterID: clusterID))
    }
}

/// The answer to a hello: who is there.
struct Welcome: Hashable, Sendable {
    var version: UInt16
    var from: MemberID
    var incarnation: UInt64
    var clusterID: String

    func encode(into writer: inout ByteWriter) {
        writer.put(version)
        writer.put(from)
        writer.put(incarnation)
        writer.putShort(clusterID)
    }

    init(version: UInt16, from: MemberID, incarnation: UInt64, clusterID: String) {
        self.version = version
        self.from = from
        self.incarnation = incarnation
        self.clusterID = clusterID
    }

    init?(decoding bytes: ArraySlice<UInt8>) {
        var reader = ByteReader(bytes)
        guard let version = reader.take(UInt16.self), let from = reader.take(UInt64.self),
            let incarnation = reader.take(UInt64.self), let clusterID = reader.takeShort()
        else { return nil }
        self.init(version: version, from: from, incarnation: incarnation, clusterID: clusterID)
    }
}

/// Why a connection is not taken; sent as the last frame, either way.
struct PeerRefusal: Error, Hashable, Sendable {
    /// Raw values are on the wire.
    enum Code: UInt16, Sendable {
        case version = 1
        case otherCluster = 2
        case notMember = 3
        case removed = 4
        case certificate = 5
        case incarnation = 6
        /// The hello was meant for another member.
        case notYou = 7
        case busy = 8
        case stopping = 9
        case malformed = 10
        /// A newer build may know more reasons.
        case other = 0
    }

    static let textBytesMax = 512

    var code: Code
    /// Written for the side that is refused.
    var text: String

    init(_ code: Code, _ text: String) {
        self.code = code
        self.text = text
    }

    func encode(into writer: inout ByteWriter) {
        writer.put(code.rawValue)
        writer.put(text.utf8.prefix(Self.textBytesMax))
    }

    /// Control characters of the text become spaces: it goes to logs.
    init?(decoding bytes: ArraySlice<UInt8>) {
        var reader = ByteReader(bytes)
        guard let raw = reader.take(UInt16.self), reader.rest.count <= Self.textBytesMax else { return nil }
        code = Code(rawValue: raw) ?? .other
        text = String(
            String(decoding: reader.rest, as: UTF8.self).unicodeScalars.map {
                $0.value < 0x20 || (0x7F...0x9F).contains($0.value) ? " " : Character($0)
            })
    }
}
