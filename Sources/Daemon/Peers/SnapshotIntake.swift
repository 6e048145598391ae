// SPDX-License-Identifier: Apache-2.0
internal import NIOCore
internal import Raft
internal import Store

/// The receiving end of a snapshot: hands chunks on one after the other and acknowledges each when it is taken.
///
/// Touched on the connection's loop only, except by its one task, which hops there to write; hence `@unchecked Sendable`.
final class SnapshotIntake: PeerStream, @unchecked Sendable {
    typealias Begin = @Sendable (MemberID, SnapshotOffer) async throws -> any SnapshotReception

    private let peer: Peer
    private let limits: PeerLimits
    private let begin: Begin
    private let ended: (PeerError?) -> Void
    /// Of the work on the snapshot, the last write and the verdict included.
    private let finished: @Sendable () -> Void
    private let chunks: AsyncStream<SnapshotChunk>
    private let input: AsyncStream<SnapshotChunk>.Continuation
    private var connection: PeerConnection?
    private var stall: Scheduled<Void>?
    private(set) var task: Task<Void, Never>?

    init(
        _ peer: Peer, limits: PeerLimits, begin: @escaping Begin, finished: @escaping @Sendable () -> Void,
        ended: @escaping (PeerError?) -> Void
    ) {
        self.peer = peer
        self.limits = limits
        self.begin = begin
        self.finished = finished
        self.ended = ended
        // Twice the window: a sender that exceeds it does not wait for acknowledgements.
        (chunks, input) = AsyncStream.makeStream(bufferingPolicy: .bufferingOldest(limits.snapshotWindow * 2))
    }

    var expected: Set<FrameKind> { [.snapshotOffer, .snapshotChunk] }

    func opened(_ connection: PeerConnection) {
        self.connection = connection
        arm()
    }

    func received(_ frame: Frame, on connection: PeerConnection) throws(PeerError) {
        arm()
        switch frame.kind {
        case .snapshotOffer:
            guard task == nil, let offer = SnapshotOffer(decoding: frame.payload.array[...]) else {
                throw PeerError(.protocolFault, "`\(peer.name)` offers a snapshot that cannot be read, or a second one")
            }
            let loop = connection.loop
            task = Task { await self.take(offer, loop) }
        default:
            guard task != nil, let chunk = SnapshotChunk(decoding: frame.payload.array) else {
                throw PeerError(.protocolFault, "`\(peer.name)` sends a chunk that cannot be read, or without an offer")
            }
            if case .dropped = input.yield(chunk) {
                throw PeerError(.protocolFault, "`\(peer.name)` sends chunks without waiting for acknowledgements")
            }
        }
    }

    func closed(_ connection: PeerConnection, _ error: PeerError?) {
        stall?.cancel()
        self.connection = nil
        input.finish()
        if task == nil { finished() }
        ended(error)
    }

    private func arm() {
        stall?.cancel()
        stall = connection?.loop.scheduleTask(in: limits.snapshotStall) { [weak self] in
            guard let self else { return }
            self.connection?.fail(PeerError(.timeout, "the snapshot of `\(self.peer.name)` made no progress"))
        }
    }

    // MARK: - The task

    private func take(_ offer: SnapshotOffer, _ loop: any EventLoop) async {
        defer { finished() }
        let reception: any SnapshotReception
        do {
            reception = try await begin(peer.id, offer)
        } catch {
            return tell(.refused("\(error)"), on: loop)
        }
        do {
            guard try await receive(offer, reception, loop) else { return await reception.abort() }
            hold(on: loop)
            tell(try await reception.finish(), on: loop)
        } catch {
            await reception.abort()
            tell(.refused("\(error)"), on: loop)
        }
    }

    /// False when the stream ended early.
    private func receive(
        _ offer: SnapshotOffer, _ reception: any SnapshotReception, _ loop: any EventLoop
    ) async throws -> Bool {
        var have = reception.resumeOffset
        guard have <= offer.bytes else {
            throw PeerError(.protocolFault, "more is there already than the snapshot has")
        }
        write(.snapshotResume, on: loop) { $0.put(have) }
        var next = chunks.makeAsyncIterator()
        while have < offer.bytes {
            guard let chunk = await next.next() else { return false }
            guard chunk.offset == have, UInt64(chunk.bytes.count) <= offer.bytes - have else {
                throw PeerError(.protocolFault, "a chunk for \(chunk.offset) where \(have) is next")
            }
            try await reception.write(chunk)
            have += UInt64(chunk.bytes.count)
            let done = have
            write(.snapshotAcknowledgement, on: loop) { $0.put(done) }
        }
        return true
    }

    private func tell(_ verdict: SnapshotVerdict, on loop: any EventLoop) {
        write(.snapshotVerdict, on: loop) { verdict.encode(into: &$0) }
        // The sender hangs up when it has read it.
        loop.execute { self.arm() }
    }

    /// Verifying takes its time, and the sender has said everything.
    private func hold(on loop: any EventLoop) {
        loop.execute { self.stall?.cancel() }
    }

    private func write(_ kind: FrameKind, on loop: any EventLoop, _ body: (inout ByteWriter) -> Void) {
        var payload = ByteWriter()
        body(&payload)
        var frame = ByteWriter()
        frame.putFrame(kind, payloadBytes: payload.bytes.count)
        frame.put(payload.bytes)
        let bytes = frame.bytes
        loop.execute {
            self.connection?.write(bytes)
            self.connection?.flush()
        }
    }
}
