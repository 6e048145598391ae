// SPDX-License-Identifier: Apache-2.0
internal import Crypto
internal import NIOCore
internal import Store

/// A backup as the body of an answer. In memory is one piece of it; the snapshot it is read from stays until the end.
struct BackupStream: BodySource {
    let reader: SnapshotReader
    let worker: SnapshotWorker
    let node: String

    var contentType: String { "application/octet-stream" }
    var isEndless: Bool { false }
    /// A client that takes nothing must not keep a snapshot for ever.
    var resumes: Bool { true }

    func produce(to writer: BodyStreamWriter, limits: RequestLimits) async throws {
        var hash = SHA256()
        let head = try BackupFile.head(of: reader.manifest, node: node)
        hash.update(data: head)
        try await writer.write(ByteBuffer(bytes: head))
        var offset: UInt64 = 0
        while offset < reader.manifest.bytes {
            let place = offset
            guard let chunk = try await worker.run({ [reader] in try reader.chunk(at: place) }) else { break }
            hash.update(data: chunk.bytes)
            try await writer.write(ByteBuffer(bytes: chunk.bytes))
            offset += UInt64(chunk.bytes.count)
        }
        try await writer.write(ByteBuffer(bytes: BackupFile.sum(hash)))
    }
}
