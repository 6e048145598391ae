// SPDX-License-Identifier: Apache-2.0
internal import HummingbirdCore
internal import Model
internal import NIOCore
internal import ServiceLifecycle

/// A body made while it is sent.
protocol BodySource: Sendable {
    var contentType: String { get }
    /// Nothing may be written for a long time, and the end is the client's to choose.
    var isEndless: Bool { get }
    /// A client that was cut off goes on where it was: one that takes nothing need not be waited for.
    var resumes: Bool { get }
    /// Writes all of it. Each write waits until the connection takes it: a source never runs ahead of its client.
    func produce(to writer: BodyStreamWriter, limits: RequestLimits) async throws
}

extension BodySource {
    var resumes: Bool { false }
}

/// Sends the body of one source until it ends, the client goes away, may not have it any more, or shutdown begins.
struct BodyStream: Sendable {
    let source: any BodySource
    let limits: RequestLimits
    /// Asked of a source without an end every so often: throws `unauthenticated` when the client's token or certificate is not
    /// good any more. Nil: it stays good.
    let mayGoOn: (@Sendable () async throws -> Void)?

    /// - Throws: what the source threw. The body is left unfinished then, which tells the client that something is missing.
    func send(to writer: any ResponseBodyWriter, of request: Request, on channel: any Channel) async throws {
        let writer = BodyStreamWriter(writer, channel, stall: source.resumes ? limits.stall : nil)
        if source.isEndless {
            // That the client is gone is only seen on its side of the connection.
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

    private func sendUntilShutdown(_ writer: BodyStreamWriter) async throws {
        do {
            try await cancelWhenGracefulShutdown { try await produce(to: writer) }
        } catch is CancellationError where Task.isShuttingDownGracefully {
            // What was sent is whole: the client may go on elsewhere.
        }
    }
}

extension BodyStream {
    private func produce(to writer: BodyStreamWriter) async throws {
        guard source.isEndless, let mayGoOn else { return try await source.produce(to: writer, limits: limits) }
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { try await source.produce(to: writer, limits: limits) }
            group.addTask {
                while true {
                    try await Task.sleep(for: limits.recheck)
                    do { try await mayGoOn() } catch {
                        // That nobody can tell now is no refusal.
                        if (error as? Problem)?.code == .unauthenticated { throw error }
                    }
                }
            }
            defer { group.cancelAll() }
            try await group.next()
        }
    }
}

/// A body writer that crosses into a child task.
///
/// Unchecked because only one task at a time touches it: the child while it sends, its parent after it ended.
final class BodyStreamWriter: @unchecked Sendable {
    private var writer: any ResponseBodyWriter
    private let channel: any Channel
    /// A write that takes longer ends the connection.
    private let stall: TimeAmount?

    init(_ writer: any ResponseBodyWriter, _ channel: any Channel, stall: Duration?) {
        self.writer = writer
        self.channel = channel
        self.stall = stall.map { TimeAmount($0) }
    }

    func write(_ buffer: ByteBuffer) async throws {
        let timer = stall.map { channel.eventLoop.scheduleTask(in: $0) { [channel] in channel.close(promise: nil) } }
        defer { timer?.cancel() }
        try await writer.write(buffer)
        // A source with much to say never waits, and this task runs on the loop: without its turn the loop would serve
        // nobody else and would not even notice that this client is gone.
        await Task.yield()
    }

    fileprivate func finish() async throws { try await writer.finish(nil) }
}
