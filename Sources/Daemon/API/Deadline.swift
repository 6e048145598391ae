// SPDX-License-Identifier: Apache-2.0
internal import Model
internal import NIOCore
internal import ServiceLifecycle

/// How long requests may take.
struct RequestLimits: Sendable {
    /// From the end of the head to the answer.
    var ordinary: Duration = .seconds(60)
    /// Pulling and importing images.
    var image: Duration = .seconds(30 * 60)
    /// A connection without a request ends after it, also one whose handshake or head does not.
    var idle: Duration = .seconds(75)
    /// What is left for requests once shutdown began.
    var drain: Duration = .seconds(5)
    /// An event stream says at least this often how far it is.
    var bookmark: Duration = .seconds(5)
    /// An event stream whose client takes nothing for so long is ended: it goes on from its last event when it comes back.
    var stall: Duration = .seconds(60)
    /// Streams without an end at once: events and followed logs. More are refused as busy, so that requests have connections.
    var streamsMax = 512
    /// Between two looks at whether who reads such a stream still may.
    var recheck: Duration = .seconds(2)
    /// JSON bodies.
    var jsonBytesMax = 4 << 20
    /// Image archives.
    var archiveBytesMax: Int64 = 32 << 30
    /// Free space an upload leaves on the disk of the data directory.
    var reserveBytes: Int64 = 512 << 20
    /// Connections served at once; more wait in the backlog of the socket.
    var connectionsMax = 1024
}

/// Runs `operation` and answers with `timeout` at the deadline whether or not it listens to cancellation; what does
/// not listen is left to end by itself.
/// - Parameters:
///   - deadline: on the loop's clock.
///   - drain: what is left of it once shutdown began.
func withDeadline<Value: Sendable>(
    _ deadline: NIODeadline,
    drain: Duration,
    on eventLoop: any EventLoop,
    _ operation: @escaping @Sendable () async throws -> Value
) async throws -> Value {
    // Only the first completion of the promise counts.
    let promise = eventLoop.makePromise(of: Value.self)
    let work = Task(executorPreference: LoopExecutor(eventLoop)) {
        do { promise.succeed(try await operation()) } catch { promise.fail(error) }
    }
    @Sendable func end(_ error: any Error) {
        promise.fail(error)
        work.cancel()
    }
    let timer = eventLoop.scheduleTask(deadline: deadline) {
        end(
            Problem(
                .timeout, "the request was not answered in time",
                hint: "the change may still happen: look at the object before you repeat it"))
    }
    defer { timer.cancel() }
    return try await withTaskCancellationHandler {
        try await withGracefulShutdownHandler {
            try await promise.futureResult.get()
        } onGracefulShutdown: {
            eventLoop.scheduleTask(in: TimeAmount(drain)) { end(stoppingProblem) }
        }
    } onCancel: {
        end(CancellationError())
    }
}

let stoppingProblem = Problem(
    .runtimeUnavailable, "the daemon is stopping", hint: "repeat the request when it runs again")
