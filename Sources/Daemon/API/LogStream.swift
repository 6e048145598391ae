// SPDX-License-Identifier: Apache-2.0
internal import Model
internal import NIOCore

/// Log lines as newline-delimited JSON: one line a write, so that a person sees it at once.
struct LogStream: BodySource {
    let lines: AsyncThrowingStream<AppLogLine, any Error>
    let follow: Bool

    var contentType: String { "application/x-ndjson" }
    var isEndless: Bool { follow }

    func produce(to writer: BodyStreamWriter, limits: RequestLimits) async throws {
        for try await line in lines {
            var buffer = ByteBuffer(bytes: try JSON.encode(line))
            buffer.writeInteger(UInt8(ascii: "\n"))
            try await writer.write(buffer)
        }
    }
}
