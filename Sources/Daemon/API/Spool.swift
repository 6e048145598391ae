// SPDX-License-Identifier: Apache-2.0
internal import FoundationEssentials
internal import Glibc
internal import Logging
internal import Model
internal import NIOCore
internal import NIOPosix
internal import Orchestrator

/// Uploaded archives, for as long as their request lasts.
///
/// A file tree cannot be written without blocking, so every call of the system runs on the pool NIO keeps for that.
struct Spool: Sendable {
    let directory: String
    let limits: RequestLimits
    private let pool = NIOThreadPool.singleton
    /// Parts are collected to this before a thread is asked to write them.
    private static let writeBytes = 1 << 20

    init(dataDirectory: String, limits: RequestLimits) {
        directory = dataDirectory + "/spool"
        self.limits = limits
    }

    /// Makes the directory and removes what a crash left. Blocks: for the start only.
    func prepare() throws(APIServerError) {
        try ensureDirectory(directory, mode: 0o700)
        let left: [String]
        do { left = try FileManager.default.contentsOfDirectory(atPath: directory) } catch {
            throw .system("list", directory, EIO)
        }
        for name in left where name.hasPrefix("upload-") { unlink(directory + "/" + name) }
    }

    /// Writes the body to a new file.
    /// - Returns: its path. The caller removes it.
    /// - Throws: `payloadTooLarge`, `noSpace`; nothing is left then.
    func store(_ body: inout BodyReader) async throws -> String {
        let free = try await freeBytes()
        let room = max(0, free - limits.reserveBytes)
        try body.refuse(above: limits.archiveBytesMax)
        if let declared = body.declared, declared > room { throw noRoom(room) }
        let path = "\(directory)/upload-\(newID()).tar"
        let file = try await pool.runIfActive {
            let file = open(path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0o600)
            guard file >= 0 else { throw APIServerError.system("make", path, errno) }
            return file
        }
        do {
            var total: Int64 = 0
            var waiting = ByteBuffer()
            while var part = try await body.next() {
                total += Int64(part.readableBytes)
                if total > limits.archiveBytesMax { throw BodyReader.tooLarge(limits.archiveBytesMax) }
                if total > room { throw noRoom(room) }
                waiting.writeBuffer(&part)
                if waiting.readableBytes >= Self.writeBytes {
                    try await write(waiting, to: file)
                    waiting.clear()
                }
            }
            try await write(waiting, to: file)
            if total == 0 {
                throw Problem(.badRequest, "the request has no body", hint: "send an OCI or docker archive (tar)")
            }
            try await pool.runIfActive { _ = close(file) }
            return path
        } catch {
            try await pool.runIfActive {
                close(file)
                unlink(path)
            }
            throw error
        }
    }

    func remove(_ path: String, logger: Logger) async {
        do {
            try await pool.runIfActive {
                if unlink(path) != 0, errno != ENOENT { throw APIServerError.system("delete", path, errno) }
            }
        } catch {
            logger.warning("uploaded archive stays until the next start", metadata: ["error": "\(error)"])
        }
    }

    private func write(_ buffer: ByteBuffer, to file: Int32) async throws {
        guard buffer.readableBytes > 0 else { return }
        try await pool.runIfActive {
            var buffer = buffer
            while buffer.readableBytes > 0 {
                let count = buffer.withUnsafeReadableBytes { Glibc.write(file, $0.baseAddress, $0.count) }
                if count > 0 {
                    buffer.moveReaderIndex(forwardBy: count)
                } else if errno == ENOSPC || errno == EDQUOT {
                    throw noRoom(0)
                } else if errno != EINTR {
                    throw APIServerError.system("write to", directory, errno)
                }
            }
        }
    }

    private func freeBytes() async throws -> Int64 {
        try await pool.runIfActive {
            var status = statvfs()
            guard statvfs(directory, &status) == 0 else { throw APIServerError.system("read", directory, errno) }
            let (bytes, overflow) = Int64(clamping: status.f_bavail)
                .multipliedReportingOverflow(by: Int64(clamping: status.f_frsize))
            return overflow ? .max : bytes
        }
    }

    private func noRoom(_ room: Int64) -> Problem {
        Problem(
            .noSpace, "the archive does not fit: \(room) bytes are free for it below `\(directory)`",
            hint: "make room there; \(limits.reserveBytes) bytes are kept for the daemon")
    }
}

/// 12 characters nobody had before.
func newID() -> String {
    // One question to the kernel, not one per character.
    var system = SystemRandomNumberGenerator()
    var random = SplitMix64(seed: system.next())
    return IdentifierMaker.make(using: &random)
}
