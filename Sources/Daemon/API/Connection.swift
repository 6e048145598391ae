// SPDX-License-Identifier: Apache-2.0
internal import HummingbirdCore
internal import Logging
internal import NIOCore
internal import ServiceLifecycle

/// Runs jobs on one event loop.
///
/// A connection's tasks run where its bytes are handled. Otherwise a producer on another thread goes on writing until
/// the loop has noticed that the client does not read, which costs memory without bound.
final class LoopExecutor: TaskExecutor {
    private let eventLoop: any EventLoop

    init(_ eventLoop: any EventLoop) { self.eventLoop = eventLoop }

    func enqueue(_ job: consuming ExecutorJob) {
        let job = UnownedJob(job)
        eventLoop.execute { job.runSynchronously(on: self.asUnownedTaskExecutor()) }
    }
}

/// HTTP/1.1 whose tasks run on the connection's own loop, and which ends in bounded time at shutdown.
struct LoopBoundConnection: ServerChildChannel {
    let base: HTTP1Channel
    /// How long a connection may last after shutdown began.
    let drain: Duration

    init(_ responder: Responder) {
        // Counted from one message to the next: a head that comes byte by byte gains no time.
        var http = HTTP1Channel.Configuration(idleTimeout: TimeAmount(responder.limits.idle))
        http.httpDecoder = .init(maxHeaderFieldSize: 16 << 10, maxHeaderListSize: 32 << 10, maxHeaderFieldCount: 100)
        base = HTTP1Channel(
            responder: { request, writer, channel in try await responder.respond(request, writer, channel) },
            configuration: http)
        drain = responder.limits.drain + .seconds(1)
    }

    func setup(channel: any Channel, logger: Logger) -> EventLoopFuture<HTTP1Channel.Value> {
        base.setup(channel: channel, logger: logger)
    }

    func handle(value: HTTP1Channel.Value, logger: Logger) async {
        let channel = value.channel
        await withTaskExecutorPreference(LoopExecutor(channel.eventLoop)) {
            await withGracefulShutdownHandler {
                await base.handle(value: value, logger: logger)
            } onGracefulShutdown: {
                channel.eventLoop.scheduleTask(in: TimeAmount(drain)) { channel.close(promise: nil) }
            }
        }
    }
}
