// SPDX-License-Identifier: Apache-2.0
internal import NIOCore
internal import Raft
internal import Synchronization

/// Requests to one peer and their answers, many at a time over one connection, made when first needed.
final class ForwardLink: Sendable {
    let peer: Peer
    private static let deadlineMax = Duration.seconds(3_600)

    private let limits: PeerLimits
    private let state = Mutex(State())
    private let stream: ForwardLinkStream
    private let dialler: Dialer

    private typealias Answer = Result<[UInt8], PeerError>

    private struct Pending {
        var continuation: CheckedContinuation<Answer, Never>
        var deadline: NIODeadline
        var bytes: Int
        var isSent = false
    }

    private struct State {
        var pending: [UInt64: Pending] = [:]
        /// Not sent yet, in order; answered or given up ones are skipped.
        var queue: [(id: UInt64, payload: [UInt8])] = []
        var bytes = 0
        var nextID: UInt64 = 1
        var isScheduled = false
        var isSweeping = false
        var isStopped = false

        mutating func remove(_ ids: [UInt64]) -> [Pending] {
            var isQueueTouched = false
            let gone = ids.compactMap { id -> Pending? in
                guard let found = pending.removeValue(forKey: id) else { return nil }
                bytes -= found.bytes
                if !found.isSent { isQueueTouched = true }
                return found
            }
            // Payloads nobody waits for must not pile up behind a peer that does not read.
            if isQueueTouched { queue.removeAll { pending[$0.id] == nil } }
            return gone
        }
    }

    init(_ peer: Peer, loop: any EventLoop, ground: PeerGround) {
        self.peer = peer
        limits = ground.limits
        let stream = ForwardLinkStream(loop: loop)
        self.stream = stream
        dialler = Dialer(
            peer, .forward, stream: stream, isEager: false, loop: loop, ground: ground,
            failed: { stream.link?.attemptFailed($0) })
        stream.link = self
    }

    /// Sends a request and waits for the answer.
    /// - Parameters:
    ///   - payload: at most 8 MiB.
    ///   - deadline: for the whole of it, the other side's work included.
    /// - Throws: `PeerError`; `isWithoutEffect` says whether the other side may have acted.
    func send(_ payload: [UInt8], deadline: Duration) async throws(PeerError) -> [UInt8] {
        guard payload.count <= ForwardedBody.payloadBytesMax else {
            throw PeerError(
                .tooLarge,
                "a request of \(payload.count) bytes to `\(peer.name)`, at most \(ForwardedBody.payloadBytesMax) can be sent"
            )
        }
        let end = NIODeadline.now() + TimeAmount(min(max(deadline, .zero), Self.deadlineMax))
        let id = state.withLock { state in
            defer { state.nextID += 1 }
            return state.nextID
        }
        let answer = await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                begin(id, Pending(continuation: continuation, deadline: end, bytes: payload.count + 256), payload)
            }
        } onCancel: {
            self.finish(id, .failure(PeerError(.cancelled, "the request to `\(peer.name)` was given up")))
        }
        return try answer.get()
    }

    func stop() -> EventLoopFuture<Void> {
        state.withLock { $0.isStopped = true }
        finishAll(where: { _ in true }) { _ in PeerError(.stopped, "this member stops") }
        return dialler.stop()
    }

    private enum Start { case refused(PeerError), queued(drain: Bool, sweep: Bool) }

    private func begin(_ id: UInt64, _ pending: Pending, _ payload: [UInt8]) {
        let start: Start = state.withLock { state in
            if state.isStopped { return .refused(PeerError(.stopped, "this member stops")) }
            guard state.pending.count < limits.requestsMax, state.bytes + pending.bytes <= limits.requestBytesMax else {
                return .refused(
                    PeerError(.busy, "too many requests to `\(peer.name)` wait for an answer", hint: "try again"))
            }
            state.pending[id] = pending
            state.bytes += pending.bytes
            state.queue.append((id, payload))
            defer { (state.isScheduled, state.isSweeping) = (true, true) }
            return .queued(drain: !state.isScheduled, sweep: !state.isSweeping)
        }
        switch start {
        case .refused(let error): pending.continuation.resume(returning: .failure(error))
        case .queued(let drain, let sweep):
            // A task cancelled before this point was not found by its handler.
            if Task.isCancelled {
                finish(id, .failure(PeerError(.cancelled, "the request to `\(peer.name)` was given up")))
            }
            if drain { stream.loop.execute { [stream] in stream.drain() } }
            if sweep { stream.loop.scheduleTask(in: .milliseconds(20)) { self.sweep() } }
        }
    }

    private func finish(_ id: UInt64, _ answer: Answer) {
        for pending in state.withLock({ $0.remove([id]) }) { pending.continuation.resume(returning: answer) }
    }

    private func finishAll(where isMeant: (Pending) -> Bool, _ error: (Pending) -> PeerError) {
        let gone = state.withLock { state in
            state.remove(state.pending.filter { isMeant($0.value) }.map(\.key).sorted())
        }
        for pending in gone { pending.continuation.resume(returning: .failure(error(pending))) }
    }

    /// Gives up what is late. Runs while anything is pending.
    private func sweep() {
        let now = NIODeadline.now()
        finishAll(where: { $0.deadline <= now }) { pending in
            pending.isSent
                ? PeerError(.timeout, "`\(peer.name)` did not answer in time")
                : PeerError(.notConnected, "no connection to `\(peer.name)` in time; nothing was sent")
        }
        let goesOn = state.withLock { state in
            state.isSweeping = !state.pending.isEmpty
            return state.isSweeping
        }
        if goesOn { stream.loop.scheduleTask(in: .milliseconds(20)) { self.sweep() } }
    }

    // MARK: - For the stream, on its loop

    fileprivate func connect() { dialler.connect() }

    /// There is no connection to be had now. Whoever waits is told at once: to try another member is better than to wait.
    fileprivate func attemptFailed(_ cause: PeerError) {
        state.withLock { $0.isScheduled = false }
        finishAll(where: { !$0.isSent }) { _ in
            PeerError(
                cause.code == .refused ? .refused : .notConnected, cause.message, hint: cause.hint,
                refusal: cause.refusal)
        }
    }

    /// What is to be sent now, with the milliseconds left for it.
    fileprivate func takeQueue() -> [(id: UInt64, milliseconds: UInt32, payload: [UInt8])] {
        let now = NIODeadline.now()
        return state.withLock { state in
            state.isScheduled = false
            let queue = state.queue
            state.queue = []
            return queue.compactMap { id, payload in
                guard let deadline = state.pending[id]?.deadline, deadline > now else { return nil }
                state.pending[id]?.isSent = true
                return (id, UInt32(clamping: (deadline - now).nanoseconds / 1_000_000), payload)
            }
        }
    }

    fileprivate func answered(_ id: UInt64, _ status: UInt32, _ payload: [UInt8]) {
        switch ForwardedBody.Status(rawValue: status) {
        case .done: finish(id, .success(payload))
        case .busy:
            finish(
                id, .failure(PeerError(.busy, "`\(peer.name)` works on too many requests already", hint: "try again")))
        case .unanswerable:
            finish(id, .failure(PeerError(.connectionLost, "`\(peer.name)` could not send the answer")))
        case nil: finish(id, .failure(PeerError(.protocolFault, "`\(peer.name)` answers with status \(status)")))
        }
    }

    fileprivate func closed(_ error: PeerError?) {
        finishAll(where: { $0.isSent }) { _ in
            PeerError(
                .connectionLost,
                "the connection to `\(peer.name)` ended before it answered: \(error?.message ?? "closed")")
        }
        let isWaiting = state.withLock { state in
            // What came too late for the connection that ended goes to the next one.
            state.isScheduled = !state.queue.isEmpty
            return state.isScheduled
        }
        if isWaiting { stream.loop.execute { [stream] in stream.drain() } }
    }
}

/// The asking end of a forward stream. Touched on `loop` only; hence `@unchecked Sendable`, to be hopped to.
private final class ForwardLinkStream: PeerStream, @unchecked Sendable {
    let loop: any EventLoop
    /// Set once, before the first connection.
    weak var link: ForwardLink?
    private var connection: PeerConnection?

    init(loop: any EventLoop) {
        self.loop = loop
    }

    var expected: Set<FrameKind> { [.reply] }

    func opened(_ connection: PeerConnection) {
        self.connection = connection
        drain()
    }

    func received(_ frame: Frame, on connection: PeerConnection) throws(PeerError) {
        let (id, status, payload) = try ForwardedBody.split(frame.payload)
        link?.answered(id, status, payload)
    }

    func writabilityChanged(_ connection: PeerConnection) {
        if connection.isWritable { drain() }
    }

    func closed(_ connection: PeerConnection, _ error: PeerError?) {
        guard self.connection === connection else { return }
        self.connection = nil
        link?.closed(error)
    }

    func drain() {
        guard let link else { return }
        guard let connection else { return link.connect() }
        // Requests wait here, bounded and with their deadlines, while the peer does not read.
        guard connection.isWritable else { return }
        var writer = ByteWriter()
        for (id, milliseconds, payload) in link.takeQueue() {
            writer.putFrame(.request, payloadBytes: ForwardedBody.headerBytes + payload.count)
            writer.put(id)
            writer.put(milliseconds)
            writer.put(payload)
        }
        guard !writer.bytes.isEmpty else { return }
        connection.write(writer.bytes)
        connection.flush()
    }
}
