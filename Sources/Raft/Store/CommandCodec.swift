// SPDX-License-Identifier: Apache-2.0
internal import FoundationEssentials
public import Model

/// Commands as bytes, big-endian:
/// `format u16 | kind u16 | time i64 (ms) | request length u16 | request | body`.
///
/// The time stands at a fixed place, so that a leader stamps a command without reading the rest. A request length of 0
/// means none. Bodies are JSON, so a field added later is simply absent in old entries; the two kinds that come by the
/// thousand a second are binary.
extension Command {
    public static let formatVersion: UInt16 = 2
    /// Of a request id, in UTF-8.
    public static let requestBytesMax = 1_024
    /// Times outside are no times: 1970 to the year 9999.
    private static let times: ClosedRange<Int64> = 0...253_402_300_799_999
    private static let timeOffset = 4
    private static let headBytes = 14

    /// A command this build does not know. Skipping it would make this replica differ from the others for ever, so
    /// whoever meets it stops applying.
    public struct Unknown: Error, Hashable, Sendable, CustomStringConvertible {
        public var version: UInt16
        public var kind: UInt16
        public var detail: String
        public var description: String {
            "command of format \(version), kind \(kind) cannot be read by this build (\(detail)); install the newer version"
        }
    }

    /// - Throws: `Problem` when the request id is too long; what JSON throws for a body.
    public func encoded() throws -> [UInt8] {
        switch change {
        case .initializeCluster(let body): try encoded(1, body)
        case .putNode(let body): try encoded(2, body)
        case .putApp(let body): try encoded(3, body)
        case .scaleService(let body): try encoded(4, body)
        case .restartApp(let body): try encoded(5, body)
        case .deleteApp(let body): try encoded(6, body)
        case .removeApp(let body): try encoded(7, body)
        case .assignTasks(let body): try encoded(8, body)
        case .stopTasks(let body): try encoded(9, body)
        case .recordTasks(let body): try encoded(10, body)
        case .removeTasks(let body): try encoded(11, body)
        case .endRollout(let body): try encoded(12, body)
        case .putVolume(let body): try encoded(13, body)
        case .deleteVolume(let body): try encoded(14, body)
        case .removeVolume(let body): try encoded(15, body)
        case .putConfig(let body):
            try encoded(16, reserving: body.data.utf8.count + 128) { writer in
                writer.put(key: body.config)
                writer.put(condition: body.condition)
                writer.put(text: body.data)
            }
        case .deleteConfig(let body):
            try encoded(17, reserving: 128) { writer in
                writer.put(key: body.config)
                writer.put(condition: body.condition)
            }
        case .compareState: try encoded(18, reserving: 0) { _ in }
        case .putAuthority(let body): try encoded(19, body)
        case .putJoinToken(let body): try encoded(20, body)
        case .removeJoinToken(let body): try encoded(21, body)
        case .admitNode(let body): try encoded(22, body)
        case .removeNode(let body): try encoded(23, body)
        case .setNode(let body): try encoded(24, body)
        case .setLiveness(let body): try encoded(25, body)
        case .rotateJoinToken(let body): try encoded(30, body)
        case .changeCertificates(let body): try encoded(31, body)
        case .changeAuthority(let body): try encoded(32, body)
        case .moveTasks(let body): try encoded(33, body)
        case .putAPIToken(let body): try encoded(40, body)
        case .removeAPIToken(let body): try encoded(41, body)
        case .setCluster(let body): try encoded(46, body)
        case .giveMember(let body): try encoded(35, body)
        case .succeedCluster(let body): try encoded(36, body)
        }
    }

    /// - Throws: `Unknown` for a version, kind or body this build does not understand, whatever the bytes are.
    public init(decoding bytes: [UInt8]) throws(Unknown) {
        var reader = CommandReader(bytes[...])
        guard let version = reader.number(UInt16.self), let kind = reader.number(UInt16.self) else {
            throw Unknown(version: 0, kind: 0, detail: "\(bytes.count) bytes")
        }
        guard version == Self.formatVersion else { throw Unknown(version: version, kind: kind, detail: "format") }
        guard let time = reader.number(Int64.self), Self.times.contains(time),
            let length = reader.number(UInt16.self), length <= Self.requestBytesMax,
            let request = reader.text(bytes: Int(length))
        else { throw Unknown(version: version, kind: kind, detail: "envelope") }
        do {
            let change = try Self.change(kind: kind, &reader)
            guard let change else { throw Unknown(version: version, kind: kind, detail: "kind or body") }
            self.init(request: length == 0 ? nil : request, at: Timestamp(milliseconds: time), change: change)
        } catch let error as Unknown {
            throw error
        } catch {
            throw Unknown(version: version, kind: kind, detail: "\(error)")
        }
    }

    /// Nil for a kind or a binary body that is not known; throws what JSON throws.
    private static func change(kind: UInt16, _ reader: inout CommandReader) throws -> Change? {
        let body = reader.rest
        func json<Body: Codable>(_ type: Body.Type, _ wrap: (Body) -> Change) throws -> Change {
            wrap(try JSON.decodeExact(type, from: Data(body)))
        }
        switch kind {
        case 1: return try json(InitializeCluster.self, Change.initializeCluster)
        case 2: return try json(NodeRow.self, Change.putNode)
        case 3: return try json(PutApp.self, Change.putApp)
        case 4: return try json(ScaleService.self, Change.scaleService)
        case 5: return try json(AppChange.self, Change.restartApp)
        case 6: return try json(AppChange.self, Change.deleteApp)
        case 7: return try json(AppChange.self, Change.removeApp)
        case 8: return try json(AssignTasks.self, Change.assignTasks)
        case 9: return try json(StopTasks.self, Change.stopTasks)
        case 10: return try json(RecordTasks.self, Change.recordTasks)
        case 11: return try json(RemoveTasks.self, Change.removeTasks)
        case 12: return try json(EndRollout.self, Change.endRollout)
        case 13: return try json(PutVolume.self, Change.putVolume)
        case 14: return try json(VolumeChange.self, Change.deleteVolume)
        case 15: return try json(VolumeChange.self, Change.removeVolume)
        case 16:
            guard let key = reader.key(), let condition = reader.condition(), let data = reader.text(),
                reader.rest.isEmpty
            else { return nil }
            return .putConfig(PutConfig(config: key, data: data, condition: condition))
        case 17:
            guard let key = reader.key(), let condition = reader.condition(), reader.rest.isEmpty else { return nil }
            return .deleteConfig(DeleteConfig(config: key, condition: condition))
        case 18: return reader.rest.isEmpty ? .compareState : nil
        case 19: return try json(AuthorityRow.self, Change.putAuthority)
        case 20: return try json(JoinTokenRow.self, Change.putJoinToken)
        case 21: return try json(JoinTokenChange.self, Change.removeJoinToken)
        case 22: return try json(AdmitNode.self, Change.admitNode)
        case 23: return try json(NodeChange.self, Change.removeNode)
        case 24: return try json(SetNode.self, Change.setNode)
        case 25: return try json(SetLiveness.self, Change.setLiveness)
        case 30: return try json(RotateJoinToken.self, Change.rotateJoinToken)
        case 31: return try json(CertificateChange.self, Change.changeCertificates)
        case 32: return try json(AuthorityChange.self, Change.changeAuthority)
        case 33: return try json(MoveTasks.self, Change.moveTasks)
        case 40: return try json(APITokenRow.self, Change.putAPIToken)
        case 41: return try json(APITokenChange.self, Change.removeAPIToken)
        case 46: return try json(SetCluster.self, Change.setCluster)
        case 35: return try json(NodeChange.self, Change.giveMember)
        case 36: return try json(SucceedCluster.self, Change.succeedCluster)
        default: return nil
        }
    }

    private func encoded(_ kind: UInt16, _ body: some Codable) throws -> [UInt8] {
        let json = try JSON.encodeExact(body)
        return try encoded(kind, reserving: json.count) { $0.bytes.append(contentsOf: json) }
    }

    private func encoded(
        _ kind: UInt16, reserving bodyBytes: Int, _ body: (inout CommandWriter) -> Void
    ) throws -> [UInt8] {
        let requestBytes = request?.utf8.count ?? 0
        guard requestBytes <= Self.requestBytesMax else {
            throw Problem(
                .badRequest, "the request id has \(requestBytes) bytes", hint: "at most \(Self.requestBytesMax)")
        }
        var writer = CommandWriter()
        writer.bytes.reserveCapacity(Self.headBytes + requestBytes + bodyBytes)
        writer.put(Self.formatVersion)
        writer.put(kind)
        writer.put(Self.clamped(at))
        writer.put(UInt16(requestBytes))
        if let request { writer.bytes.append(contentsOf: request.utf8) }
        body(&writer)
        return writer.bytes
    }

    // MARK: - The leader's stamp

    private static func clamped(_ time: Timestamp) -> Int64 {
        min(max(time.milliseconds, times.lowerBound), times.upperBound)
    }

    /// Overwrites the time of an encoded command in place; costs the same for every command.
    /// - Returns: false when the bytes are no command of this format; they are as they were then.
    @discardableResult
    public static func stamp(_ bytes: inout [UInt8], at time: Timestamp) -> Bool {
        guard hasHead(bytes) else { return false }
        let value = clamped(time)
        for place in 0..<8 { bytes[timeOffset + place] = UInt8(truncatingIfNeeded: value >> Int64(56 - 8 * place)) }
        return true
    }

    /// The time of an encoded command; nil when the bytes are no command of this format.
    public static func time(of bytes: [UInt8]) -> Timestamp? {
        guard hasHead(bytes) else { return nil }
        var reader = CommandReader(bytes[timeOffset...])
        return reader.number(Int64.self).flatMap { times.contains($0) ? Timestamp(milliseconds: $0) : nil }
    }

    /// Whether encoded bytes are a `compareState`.
    static func isComparison(_ bytes: [UInt8]) -> Bool {
        hasHead(bytes) && bytes[2] == 0 && bytes[3] == 18
    }

    private static func hasHead(_ bytes: [UInt8]) -> Bool {
        bytes.count >= headBytes && bytes[0] == UInt8(formatVersion >> 8) && bytes[1] == UInt8(formatVersion & 255)
    }
}

// MARK: - Fields

/// Conditions as bytes: 0 none, 1 absent, 2 a version (u64). Texts: u32 length and UTF-8. Keys: namespace
/// and name as texts.
private struct CommandWriter {
    var bytes: [UInt8] = []

    mutating func put<Value: FixedWidthInteger>(_ value: Value) {
        withUnsafeBytes(of: value.bigEndian) { bytes.append(contentsOf: $0) }
    }

    mutating func put(text: String) {
        put(UInt32(truncatingIfNeeded: text.utf8.count))
        bytes.append(contentsOf: text.utf8)
    }

    mutating func put(key: ObjectKey) {
        put(text: key.namespace)
        put(text: key.name)
    }

    mutating func put(condition: Precondition) {
        switch condition {
        case .none: bytes.append(0)
        case .absent: bytes.append(1)
        case .version(let version):
            bytes.append(2)
            put(version)
        }
    }
}

/// Every length is checked against what is there before anything is made from it.
private struct CommandReader {
    private(set) var rest: ArraySlice<UInt8>

    init(_ bytes: ArraySlice<UInt8>) {
        rest = bytes
    }

    mutating func number<Value: FixedWidthInteger>(_ type: Value.Type) -> Value? {
        let width = MemoryLayout<Value>.size
        guard rest.count >= width else { return nil }
        let value = rest.withUnsafeBytes { $0.loadUnaligned(as: Value.self) }
        rest = rest.dropFirst(width)
        return Value(bigEndian: value)
    }

    mutating func text(bytes count: Int) -> String? {
        guard count <= rest.count else { return nil }
        defer { rest = rest.dropFirst(count) }
        return String(validating: rest.prefix(count), as: UTF8.self)
    }

    mutating func text() -> String? {
        guard let count = number(UInt32.self) else { return nil }
        return text(bytes: Int(count))
    }

    mutating func key() -> ObjectKey? {
        guard let namespace = text(), let name = text() else { return nil }
        return ObjectKey(namespace: namespace, name: name)
    }

    mutating func condition() -> Precondition? {
        switch number(UInt8.self) {
        case 0: return Precondition.none
        case 1: return .absent
        case 2: return number(UInt64.self).map(Precondition.version)
        default: return nil
        }
    }
}
