// SPDX-License-Identifier: Apache-2.0
internal import NIOCore
internal import Raft
internal import Store
internal import Synchronization

/// Sends one snapshot to one peer over a connection of its own: offer, resume, chunks against acknowledgements, verdict.
///
/// The connection's part is touched on `loop` only; the sending runs in the caller's task. Hence `@unchecked Sendable`.
final class SnapshotSender: PeerStream, @unchecked Sendable {
    private enum Event: Sendable {
        case opened
        case resume(UInt64)
        case acknowledged(UInt64)
        case verdict(SnapshotVerdict)
    }

    private let peer: Peer
    private let loop: any EventLoop
    private let ground: PeerGround
    private let events: AsyncThrowingStream<Event, any Error>
    private let input: AsyncThrowingStream<Event, any Error>.Continuation
    /// Why the connection ended, for a sender that is busy reading.
    private let over = Mutex<PeerError?>(nil)
    private var connection: PeerConnection?
    private var stall: Scheduled<Void>?

    init(_ peer: Peer, loop: any EventLoop, ground: PeerGround) {
        self.peer = peer
        self.loop = loop
        self.ground = ground
        // More than a window of acknowledgements is never under way.
        (events, input) = AsyncThrowingStream.makeStream(bufferingPolicy: .bufferingOldest(64))
    }

    /// - Throws: `PeerError` when the stream breaks or stalls; errors of the source; `CancellationError`.
    func send(_ source: SnapshotSource) async throws -> SnapshotVerdict {
        let channel: any Channel
        do {
            channel = try await PeerSocket.connect(
                to: peer, .snapshot, stream: self, loop: loop, ground: ground,
                ended: { error, _ in
                    let error = error ?? PeerError(.connectionLost, "the snapshot's connection ended")
                    self.over.withLock { $0 = error }
                    self.input.finish(throwing: error)
                }
            ).get()
        } catch {
            throw PeerSocket.explain(error, dialling: peer)
        }
        defer { channel.close(promise: nil) }
        var next = events.makeAsyncIterator()
        guard case .opened? = try await next.next() else { throw failure("begins without a welcome") }
        write(.snapshotOffer) { source.offer.encode(into: &$0) }
        switch try await next.next() {
        case .resume(let offset) where offset <= source.offer.bytes:
            if offset == source.offer.bytes { arm(ground.limits.snapshotVerdict) }
            return try await stream(source, from: offset, &next)
        case .verdict(.refused(let why)): return .refused(why)
        default: throw failure("does not say where to begin")
        }
    }

    private func stream(
        _ source: SnapshotSource, from offset: UInt64, _ next: inout AsyncThrowingStream<Event, any Error>.Iterator
    ) async throws -> SnapshotVerdict {
        let total = source.offer.bytes
        let window = UInt64(ground.limits.snapshotWindow * SnapshotChunk.bytesMax)
        var sent = offset
        var acknowledged = offset
        var pace = Pace(bytesPerSecond: ground.limits.snapshotBytesPerSecond)
        while true {
            while sent < total, sent - acknowledged < window {
                if let error = over.withLock({ $0 }) { throw error }
                let chunk = try await source.read(sent)
                guard chunk.offset == sent, (1...SnapshotChunk.bytesMax).contains(chunk.bytes.count),
                    sent + UInt64(chunk.bytes.count) <= total
                else { throw PeerError(.protocolFault, "the snapshot gives a chunk that does not fit at \(sent)") }
                try await pace.wait(for: chunk.bytes.count)
                write(.snapshotChunk) { $0.put(chunk.encoded()) }
                sent += UInt64(chunk.bytes.count)
            }
            switch try await next.next() {
            case .acknowledged(let offset):
                guard offset >= acknowledged, offset <= sent else { throw failure("acknowledges what was not sent") }
                acknowledged = offset
                if acknowledged == total { arm(ground.limits.snapshotVerdict) }
            case .verdict(let verdict):
                if verdict == .accepted, acknowledged < total { throw failure("accepts what it does not have") }
                return verdict
            case nil: throw CancellationError()
            case .opened, .resume: throw failure("answers out of turn")
            }
        }
    }

    private func failure(_ what: String) -> any Error {
        Task.isCancelled ? CancellationError() : PeerError(.protocolFault, "`\(peer.name)` \(what)")
    }

    private func write(_ kind: FrameKind, _ body: (inout ByteWriter) -> Void) {
        var payload = ByteWriter()
        body(&payload)
        var frame = ByteWriter()
        frame.reserve(payload.bytes.count + FrameReader.headerBytes)
        frame.putFrame(kind, payloadBytes: payload.bytes.count)
        frame.put(payload.bytes)
        let bytes = frame.bytes
        loop.execute {
            self.connection?.write(bytes)
            self.connection?.flush()
        }
    }

    private func arm(_ limit: TimeAmount) {
        loop.execute {
            self.stall?.cancel()
            self.stall = self.loop.scheduleTask(in: limit) { [weak self] in
                guard let self else { return }
                self.connection?.fail(PeerError(.timeout, "the snapshot for `\(self.peer.name)` made no progress"))
            }
        }
    }

    // MARK: - The connection, on its loop

    var expected: Set<FrameKind> { [.snapshotResume, .snapshotAcknowledgement, .snapshotVerdict] }

    func opened(_ connection: PeerConnection) {
        self.connection = connection
        arm(ground.limits.snapshotStall)
        give(.opened, connection)
    }

    func received(_ frame: Frame, on connection: PeerConnection) throws(PeerError) {
        arm(ground.limits.snapshotStall)
        var payload = frame.payload
        switch frame.kind {
        case .snapshotVerdict:
            guard let verdict = SnapshotVerdict(decoding: payload.array[...]) else {
                throw PeerError(.protocolFault, "`\(peer.name)` gives a verdict that cannot be read")
            }
            give(.verdict(verdict), connection)
        default:
            guard let offset = payload.readInteger(endianness: .little, as: UInt64.self) else {
                throw PeerError(.protocolFault, "`\(peer.name)` answers a snapshot without an offset")
            }
            give(frame.kind == .snapshotResume ? .resume(offset) : .acknowledged(offset), connection)
        }
    }

    private func give(_ event: Event, _ connection: PeerConnection) {
        if case .dropped = input.yield(event) {
            connection.fail(PeerError(.protocolFault, "`\(peer.name)` answers more than it was asked"))
        }
    }

    func closed(_ connection: PeerConnection, _ error: PeerError?) {
        stall?.cancel()
        self.connection = nil
    }
}

/// Spreads bytes over time.
private struct Pace {
    let bytesPerSecond: Int
    private var free = ContinuousClock.now

    init(bytesPerSecond: Int) {
        self.bytesPerSecond = bytesPerSecond
    }

    mutating func wait(for bytes: Int) async throws {
        let now = ContinuousClock.now
        if free > now { try await ContinuousClock().sleep(until: free) }
        free = max(free, now) + .nanoseconds(Int64(bytes) * 1_000_000_000 / Int64(max(1, bytesPerSecond)))
    }
}
