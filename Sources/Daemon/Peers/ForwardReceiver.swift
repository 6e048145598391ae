// SPDX-License-Identifier: Apache-2.0
internal import NIOCore
internal import Raft
internal import Synchronization

/// The answering end of a forward stream: each request is a task, ended by its deadline and with the connection.
///
/// `state` is shared with the tasks; the rest is touched on the connection's loop only, hence `@unchecked Sendable`.
final class ForwardReceiver: PeerStream, @unchecked Sendable {
    typealias Serve = @Sendable (MemberID, [UInt8]) async -> [UInt8]

    private struct Reply {
        var id: UInt64
        var status: ForwardedBody.Status
        var payload: [UInt8]
    }

    private struct Served {
        var task: Task<Void, Never>
        var deadline: NIODeadline
        var bytes: Int
        /// Nobody waits for the answer any more; it counts until its task ends.
        var isLate = false
    }

    private struct Outbox {
        var replies: [Reply] = []
        var isScheduled = false
        var isClosed = false
    }

    private let peer: Peer
    private let limits: PeerLimits
    private let serve: Serve
    private let ended: (PeerError?) -> Void
    private let outbox = Mutex(Outbox())
    private var served: [UInt64: Served] = [:]
    private var servedBytes = 0
    private var unsent: [Reply] = []
    private var unsentBytes = 0
    private var connection: PeerConnection?
    private var sweep: RepeatedTask?

    init(_ peer: Peer, limits: PeerLimits, serve: @escaping Serve, ended: @escaping (PeerError?) -> Void) {
        self.peer = peer
        self.limits = limits
        self.serve = serve
        self.ended = ended
    }

    var expected: Set<FrameKind> { [.request] }

    func opened(_ connection: PeerConnection) {
        self.connection = connection
        sweep = connection.loop.scheduleRepeatedTask(initialDelay: .milliseconds(100), delay: .milliseconds(100)) {
            [weak self] _ in self?.cancelLate()
        }
    }

    func received(_ frame: Frame, on connection: PeerConnection) throws(PeerError) {
        let (id, milliseconds, payload) = try ForwardedBody.split(frame.payload)
        guard served[id] == nil else { throw PeerError(.protocolFault, "`\(peer.name)` uses request id \(id) twice") }
        guard served.count + unsent.count < limits.servedMax,
            servedBytes + unsentBytes + payload.count <= limits.servedBytesMax
        else {
            // Whoever asks on and on and reads no answers is not asked to stop, but stopped.
            guard connection.isWritable else {
                throw PeerError(.protocolFault, "`\(peer.name)` sends requests and reads no answers")
            }
            unsent.append(Reply(id: id, status: .busy, payload: []))
            return
        }
        let member = peer.id
        let task = Task { [serve] in self.finished(id, await serve(member, payload), on: connection) }
        served[id] = Served(
            task: task, deadline: .now() + .milliseconds(Int64(milliseconds)), bytes: payload.count)
        servedBytes += payload.count
    }

    func readCompleted(_ connection: PeerConnection) { writeReplies() }

    func writabilityChanged(_ connection: PeerConnection) { writeReplies() }

    func closed(_ connection: PeerConnection, _ error: PeerError?) {
        sweep?.cancel()
        outbox.withLock { $0.isClosed = true }
        for served in served.values { served.task.cancel() }
        served = [:]
        unsent = []
        self.connection = nil
        ended(error)
    }

    /// Any thread.
    private func finished(_ id: UInt64, _ payload: [UInt8], on connection: PeerConnection) {
        let isTooLarge = payload.count > ForwardedBody.payloadBytesMax
        let isDue = outbox.withLock { outbox in
            guard !outbox.isClosed else { return false }
            outbox.replies.append(
                Reply(id: id, status: isTooLarge ? .unanswerable : .done, payload: isTooLarge ? [] : payload))
            defer { outbox.isScheduled = true }
            return !outbox.isScheduled
        }
        if isDue { connection.loop.execute { self.writeReplies() } }
    }

    private func writeReplies() {
        guard let connection else { return }
        let fresh = outbox.withLock { outbox in
            outbox.isScheduled = false
            defer { outbox.replies = [] }
            return outbox.replies
        }
        for reply in fresh {
            guard let request = served.removeValue(forKey: reply.id) else { continue }
            servedBytes -= request.bytes
            if request.isLate { continue }
            var reply = reply
            if unsentBytes + reply.payload.count > limits.servedBytesMax {
                reply.status = .unanswerable
                reply.payload = []
            }
            unsent.append(reply)
            unsentBytes += reply.payload.count
        }
        while !unsent.isEmpty, connection.isWritable {
            var writer = ByteWriter()
            var count = 0
            while count < unsent.count, writer.bytes.count < 128 << 10 {
                let reply = unsent[count]
                count += 1
                unsentBytes -= reply.payload.count
                writer.putFrame(.reply, payloadBytes: ForwardedBody.headerBytes + reply.payload.count)
                writer.put(reply.id)
                writer.put(reply.status.rawValue)
                writer.put(reply.payload)
            }
            // Before the flush: it may come back here, when the socket takes everything, or end the connection.
            unsent.removeFirst(count)
            connection.write(writer.bytes)
            connection.flush()
        }
    }

    private func cancelLate() {
        let now = NIODeadline.now()
        for (id, request) in served where !request.isLate && request.deadline <= now {
            served[id]?.isLate = true
            request.task.cancel()
        }
    }
}
