// SPDX-License-Identifier: Apache-2.0
internal import FoundationEssentials
internal import Model

/// Commands as bytes: format version (u16), kind (u16), both big-endian, then the envelope as JSON.
///
/// Readable with a pager when it matters, and a field added later is simply absent in old entries.
extension Command {
    public static let formatVersion: UInt16 = 1

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

    private struct Envelope<Body: Codable>: Codable {
        var request: String?
        var at: Int64
        var body: Body
    }

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
        case .putConfig(let body): try encoded(16, body)
        case .deleteConfig(let body): try encoded(17, body)
        }
    }

    /// - Throws: `Unknown` for a version, kind or body this build does not understand.
    public init(decoding bytes: [UInt8]) throws(Unknown) {
        guard bytes.count >= 4 else { throw Unknown(version: 0, kind: 0, detail: "\(bytes.count) bytes") }
        let version = UInt16(bytes[0]) << 8 | UInt16(bytes[1])
        let kind = UInt16(bytes[2]) << 8 | UInt16(bytes[3])
        guard version == Self.formatVersion else { throw Unknown(version: version, kind: kind, detail: "format") }
        do {
            func body<Body: Codable>(_ type: Body.Type, _ wrap: (Body) -> Change) throws -> Command {
                let envelope = try JSON.decodeExact(Envelope<Body>.self, from: Data(bytes[4...]))
                return Command(
                    request: envelope.request, at: Timestamp(milliseconds: envelope.at), change: wrap(envelope.body))
            }
            self =
                switch kind {
                case 1: try body(InitializeCluster.self, Change.initializeCluster)
                case 2: try body(NodeRow.self, Change.putNode)
                case 3: try body(PutApp.self, Change.putApp)
                case 4: try body(ScaleService.self, Change.scaleService)
                case 5: try body(AppChange.self, Change.restartApp)
                case 6: try body(AppChange.self, Change.deleteApp)
                case 7: try body(AppChange.self, Change.removeApp)
                case 8: try body(AssignTasks.self, Change.assignTasks)
                case 9: try body(StopTasks.self, Change.stopTasks)
                case 10: try body(RecordTasks.self, Change.recordTasks)
                case 11: try body(RemoveTasks.self, Change.removeTasks)
                case 12: try body(EndRollout.self, Change.endRollout)
                case 13: try body(PutVolume.self, Change.putVolume)
                case 14: try body(VolumeChange.self, Change.deleteVolume)
                case 15: try body(VolumeChange.self, Change.removeVolume)
                case 16: try body(PutConfig.self, Change.putConfig)
                case 17: try body(DeleteConfig.self, Change.deleteConfig)
                default: throw Unknown(version: version, kind: kind, detail: "kind")
                }
        } catch let error as Unknown {
            throw error
        } catch {
            throw Unknown(version: version, kind: kind, detail: "\(error)")
        }
    }

    private func encoded(_ kind: UInt16, _ body: some Codable) throws -> [UInt8] {
        let json = try JSON.encodeExact(Envelope(request: request, at: at.milliseconds, body: body))
        var bytes: [UInt8] = []
        bytes.reserveCapacity(4 + json.count)
        bytes.append(UInt8(Self.formatVersion >> 8))
        bytes.append(UInt8(Self.formatVersion & 255))
        bytes.append(UInt8(kind >> 8))
        bytes.append(UInt8(kind & 255))
        bytes.append(contentsOf: json)
        return bytes
    }
}
