// SPDX-License-Identifier: Apache-2.0
internal import HummingbirdCore
internal import Model
internal import NIOCore
internal import ServiceLifecycle

/// Sends log lines as they come: one line a write, so that a person sees it at once, and never more lines than the
/// client takes, because each write waits until the connection takes it.
struct LogStream: Sendable {
    let lines: AsyncThrowingStream<AppLogLine, any Error>
    let follow: Bool

    /// Ends when the lines end, the client goes away or shutdown begins.
    /// - Throws: what the source threw. The body is left unfinished then, which tells the client that lines are missing.
    func send(to writer: any ResponseBodyWriter, of request: Request, on channel: any Channel) async throws {
        let writer = OneTaskWriter(writer)
        if follow {
            // Nothing may be written for hours: that the client is gone is only seen on its side of the connection.
            try await request.body.consumeWithCancellationOnInboundClose { _ in try await sendUntilShutdown(writer) }
        } else {
            try await sendUntilShutdown(writer)
        }
        if Task.isShuttingDownGracefully {
            // The client may not read: the end of the body must not wait for it.
            channel.eventLoop.scheduleTask(in: .milliseconds(500)) { channel.close(promise: nil) }
        }
        try await writer.finish()
    }

    private func sendUntilShutdown(_ writer: OneTaskWriter) async throws {
        try await cancelWhenGracefulShutdown {
            for try await line in lines {
                var buffer = ByteBuffer(bytes: try JSON.encode(line))
                buffer.writeInteger(UInt8(ascii: "\n"))
                try await writer.write(buffer)
                // A source with many lines never waits, and this task runs on the loop: without its turn the loop
                // would serve nobody else and would not even notice that this client is gone.
                await Task.yield()
            }
        }
    }
}

/// A body writer that crosses into a child task.
///
/// Unchecked because only one task at a time touches it: the child while it sends lines, its parent after it ended.
private final class OneTaskWriter: @unchecked Sendable {
    private var writer: any ResponseBodyWriter

    init(_ writer: any ResponseBodyWriter) { self.writer = writer }

    func write(_ buffer: ByteBuffer) async throws { try await writer.write(buffer) }
    func finish() async throws { try await writer.finish(nil) }
}
