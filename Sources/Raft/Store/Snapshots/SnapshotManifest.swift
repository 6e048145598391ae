// SPDX-License-Identifier: Apache-2.0
internal import FoundationEssentials
public import Model
public import Raft

/// What a snapshot file must be: written beside it, sent before it.
public struct SnapshotManifest: Hashable, Sendable {
    public static let format = 1
    /// Of the states this build reads.
    public static var currentSchema: Int { Schema.version }
    /// Of an encoded manifest; one with the most members and removed ids has 70 KiB.
    public static let encodedBytesMax = 256 << 10

    public var position: LogPosition
    public var configuration: ConfigurationPoint
    /// Empty before the cluster has one.
    public var clusterID: String
    public var schemaVersion: Int
    /// Of the file.
    public var bytes: UInt64
    /// Of the file; 32 bytes.
    public var sha256: [UInt8]
    public var createdAt: Timestamp

    public init(
        position: LogPosition, configuration: ConfigurationPoint, clusterID: String, schemaVersion: Int, bytes: UInt64,
        sha256: [UInt8], createdAt: Timestamp
    ) {
        self.position = position
        self.configuration = configuration
        self.clusterID = clusterID
        self.schemaVersion = schemaVersion
        self.bytes = bytes
        self.sha256 = sha256
        self.createdAt = createdAt
    }

    public var meta: SnapshotMeta { SnapshotMeta(position: position, configuration: configuration) }

    /// Unique to the content, and in the order of the log.
    public var name: String {
        let index = String(position.index)
        let padded = String(repeating: "0", count: max(0, 20 - index.count)) + index
        return "\(padded)-\(position.term)-\(hexText(sha256.prefix(4)))"
    }
}

// MARK: - Bytes

/// One line of JSON, then the CRC-32C of it and its line end as eight hexadecimal digits: a file people can read.
extension SnapshotManifest {
    private struct Fields: Codable {
        var format: Int
        var index: UInt64
        var term: UInt64
        var configurationIndex: UInt64
        var membership: String
        var cluster: String
        var schemaVersion: Int
        var bytes: UInt64
        var sha256: String
        var createdAt: Int64
    }

    public func encoded() throws(SnapshotError) -> [UInt8] {
        let fields = Fields(
            format: Self.format, index: position.index, term: position.term, configurationIndex: configuration.index,
            membership: hexText(configuration.membership.encoded()), cluster: clusterID, schemaVersion: schemaVersion,
            bytes: bytes, sha256: hexText(sha256), createdAt: createdAt.milliseconds)
        return try snapshotCall(name) {
            var line = Array(try JSON.encodeExact(fields))
            line.append(UInt8(ascii: "\n"))
            return line + Self.checksum(line[...]) + [UInt8(ascii: "\n")]
        }
    }

    private static func checksum(_ line: ArraySlice<UInt8>) -> [UInt8] {
        let sum = CRC32C.of(line)
        return Array(hexText([24, 16, 8, 0].map { UInt8(truncatingIfNeeded: sum >> UInt32($0)) }).utf8)
    }

    /// - Throws: `damaged`, or `newer` when this build cannot read what is intact.
    public init(decoding bytes: [UInt8]) throws(SnapshotError) {
        guard bytes.count <= Self.encodedBytesMax, let end = bytes.firstIndex(of: UInt8(ascii: "\n")),
            Array(bytes[(end + 1)...]) == Self.checksum(bytes[...end]) + [UInt8(ascii: "\n")]
        else { throw SnapshotError(.damaged, "the manifest of a snapshot is damaged") }
        // Only the format is sure to be there in one that is newer.
        struct Head: Codable { var format: Int }
        do {
            let data = Data(bytes[..<end])
            let head = try JSON.decodeExact(Head.self, from: data)
            guard head.format == Self.format else {
                throw SnapshotError(
                    .newer, "the manifest of a snapshot has format \(head.format), this build reads \(Self.format)",
                    hint: "install the version that wrote it")
            }
            let fields = try JSON.decodeExact(Fields.self, from: data)
            guard let sha256 = bytesOf(hex: fields.sha256), sha256.count == 32,
                let membership = bytesOf(hex: fields.membership).flatMap(Membership.init(decoding:)),
                fields.configurationIndex <= fields.index
            else { throw SnapshotError(.damaged, "the manifest of a snapshot contradicts itself") }
            self.init(
                position: LogPosition(index: fields.index, term: fields.term),
                configuration: ConfigurationPoint(index: fields.configurationIndex, membership: membership),
                clusterID: fields.cluster, schemaVersion: fields.schemaVersion, bytes: fields.bytes, sha256: sha256,
                createdAt: Timestamp(milliseconds: fields.createdAt))
        } catch let error as SnapshotError {
            throw error
        } catch {
            throw SnapshotError(.damaged, "the manifest of a snapshot cannot be read: \(error)")
        }
    }
}

/// Nil when the text is not pairs of hexadecimal digits.
private func bytesOf(hex text: String) -> [UInt8]? {
    let digits = Array(text.utf8)
    guard digits.count % 2 == 0 else { return nil }
    func value(_ digit: UInt8) -> UInt8? {
        switch digit {
        case 48...57: digit - 48
        case 97...102: digit - 87
        default: nil
        }
    }
    var bytes: [UInt8] = []
    bytes.reserveCapacity(digits.count / 2)
    for index in stride(from: 0, to: digits.count, by: 2) {
        guard let high = value(digits[index]), let low = value(digits[index + 1]) else { return nil }
        bytes.append(high << 4 | low)
    }
    return bytes
}
