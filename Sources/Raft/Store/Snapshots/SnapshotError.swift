// SPDX-License-Identifier: Apache-2.0
internal import GRDB
public import Model

/// Why a snapshot cannot be taken, sent, received or put in force.
public struct SnapshotError: ReasonError, Hashable {
    public enum Code: String, Sendable {
        /// No room on the disk; nothing was changed.
        case noSpace
        /// Bytes are not what they were when they were written. Of what was received nothing is kept.
        case damaged
        /// Of another cluster.
        case foreign
        /// Written by a newer version of Hivemind.
        case newer
        /// Larger than may be received.
        case tooLarge
        /// A chunk that does not follow the one before; what was received so far stays.
        case outOfOrder
        /// No snapshot of that name.
        case notFound
        /// The file system or SQLite failed.
        case failed
    }

    public var code: Code
    public var message: String
    public var hint: String?
    /// `errno` or SQLite's result code.
    public var status: Int32?

    public init(_ code: Code, _ message: String, hint: String? = nil, status: Int32? = nil) {
        self.code = code
        self.message = message
        self.hint = hint
        self.status = status
    }

    public var reason: Reason {
        Reason(code == .noSpace ? .noSpace : .internal, message, hint: hint)
    }
}

extension SnapshotError {
    init(_ error: DiskError) {
        self.init(
            error.isNoSpace ? .noSpace : .failed, "\(error)",
            hint: error.isNoSpace ? "free space on that disk" : "check the disk", status: error.status)
    }

    /// What SQLite says about a file.
    init(_ error: DatabaseError, file: String) {
        let message = "snapshot `\(file)`: \(error.message ?? "SQLite error") (\(error.resultCode.rawValue))"
        switch error.resultCode {
        case .SQLITE_FULL: self.init(.noSpace, message, hint: "free space on that disk", status: 13)
        case .SQLITE_CORRUPT, .SQLITE_NOTADB: self.init(.damaged, message, status: error.resultCode.rawValue)
        default: self.init(.failed, message, status: error.resultCode.rawValue)
        }
    }
}

/// Calls of the file system and SQLite with the room's own error.
func snapshotCall<Value>(_ file: String, _ body: () throws -> Value) throws(SnapshotError) -> Value {
    do {
        return try body()
    } catch let error as SnapshotError {
        throw error
    } catch let error as DiskError {
        throw SnapshotError(error)
    } catch let error as DatabaseError {
        throw SnapshotError(error, file: file)
    } catch {
        throw SnapshotError(.failed, "snapshot `\(file)`: \(error)")
    }
}
