// SPDX-License-Identifier: Apache-2.0
internal import NIOCore
internal import Raft
internal import Synchronization

/// Messages to one peer: queued from any thread, sent in bursts on the connection's loop.
///
/// Bounded in bytes and number; beyond it, and while there is no connection, messages are lost and counted.
///
/// What is committed, alone, waits a moment for something to go with: mostly the next entry takes it along, which spares both
/// sides a message for each write of a lone client. A peer that has just asked for something is waiting for it and gets it at once.
final class RaftLink: Sendable {
    static let commitPause = TimeAmount.microseconds(500)
    /// After a peer's question, in milliseconds of `Clock.monotonic`.
    static let promptMilliseconds: Int64 = 20

    let peer: Peer
    private let limits: PeerLimits
    private let state = Mutex(State())
    private let stream: RaftLinkStream
    private let dialler: Dialer
    private let promptUntil = Atomic<Int64>(0)

    fileprivate struct State {
        var waiting: [Message] = []
        /// Of all that was queued and not yet encoded, in memory.
        var bytes = 0
        var count = 0
        var isOpen = false
        var isScheduled = false
        /// What waits is sent after a pause.
        var isPausing = false
        var dropped: UInt64 = 0
        var sent: UInt64 = 0
        var roundTripNanoseconds: Int64?
        /// Why there is no connection, when one of the two sides does not want it.
        var refusal: String?
    }

    struct Status: Sendable {
        var isConnected: Bool
        var dropped: UInt64
        var sent: UInt64
        var roundTripNanoseconds: Int64?
        var waitingBytes: Int
        var refusal: String?
    }

    /// - Parameter lost: an open connection ended.
    init(
        _ peer: Peer, loop: any EventLoop, ground: PeerGround, lost: @escaping @Sendable (MemberID) -> Void,
        refused: @escaping @Sendable (MemberID, PeerRefusal.Code) -> Void
    ) {
        self.peer = peer
        limits = ground.limits
        stream = RaftLinkStream(loop: loop)
        dialler = Dialer(
            peer, .raft, stream: stream, isEager: true, loop: loop, ground: ground,
            failed: { [stream] in
                stream.link?.failed($0)
                if let code = $0.refusal { refused(peer.id, code) }
            })
        stream.link = self
        stream.lost = lost
    }

    func start() { dialler.connect() }
    func hurry() { dialler.hurry() }
    func stop() -> EventLoopFuture<Void> { dialler.stop() }

    var status: Status {
        state.withLock {
            Status(
                isConnected: $0.isOpen, dropped: $0.dropped, sent: $0.sent,
                roundTripNanoseconds: $0.roundTripNanoseconds, waitingBytes: $0.bytes, refusal: $0.refusal)
        }
    }

    /// The peer asked this member for something, and may wait for what is committed now. Any thread; never blocks.
    func isAsked() { promptUntil.store(Clock.monotonic() + Self.promptMilliseconds, ordering: .relaxed) }

    private enum Due {
        case now, afterPause, never
    }

    /// Any thread; never blocks.
    func send(_ messages: some Sequence<Message>) {
        let canWait = messages.allSatisfy(\.tellsCommitOnly)
        let isPrompt = !canWait || Clock.monotonic() < promptUntil.load(ordering: .relaxed)
        let due = state.withLock { state -> Due in
            for message in messages { enqueue(message, &state) }
            guard state.isOpen, !state.isScheduled, !state.waiting.isEmpty else { return .never }
            guard isPrompt else {
                defer { state.isPausing = true }
                return state.isPausing ? .never : .afterPause
            }
            state.isScheduled = true
            return .now
        }
        switch due {
        case .now: stream.loop.execute { [stream] in stream.drain() }
        case .afterPause: stream.loop.execute { [stream] in stream.drainSoon() }
        case .never: break
        }
    }

    private func enqueue(_ message: Message, _ state: inout State) {
        let bytes = Self.footprint(message)
        if state.isOpen {
            guard state.bytes + bytes <= limits.raftBytesMax, state.count < limits.raftMessagesMax else {
                state.dropped += 1
                return
            }
        } else {
            while !state.waiting.isEmpty,
                state.waiting.count >= limits.raftUnconnectedMax
                    || state.bytes + bytes > limits.raftUnconnectedBytesMax
            {
                Self.forget(state.waiting.removeFirst(), &state)
            }
            guard bytes <= limits.raftUnconnectedBytesMax else {
                state.dropped += 1
                return
            }
        }
        state.waiting.append(message)
        state.bytes += bytes
        state.count += 1
    }

    private static func forget(_ message: Message, _ state: inout State) {
        state.bytes -= footprint(message)
        state.count -= 1
        state.dropped += 1
    }

    /// In memory, with a fixed share for the fields.
    fileprivate static func footprint(_ message: Message) -> Int {
        guard case .append(let append) = message.body else { return 128 }
        return append.entries.reduce(128) { $0 + $1.footprintBytes }
    }

    // MARK: - For the stream, on its loop

    fileprivate func opened() {
        state.withLock {
            $0.isOpen = true
            $0.isScheduled = true
            $0.refusal = nil
        }
    }

    fileprivate func failed(_ error: PeerError) {
        let isForGood: Bool =
            switch error.code {
            case .refused: error.refusal != .stopping && error.refusal != .busy
            case .insecure, .protocolFault: true
            default: false
            }
        state.withLock { $0.refusal = isForGood ? error.message : nil }
    }

    fileprivate var isPausing: Bool { state.withLock { $0.isPausing } }

    fileprivate func takeWaiting() -> [Message] {
        state.withLock { state in
            state.isScheduled = false
            state.isPausing = false
            defer { state.waiting = [] }
            return state.waiting
        }
    }

    fileprivate func measured(_ nanoseconds: Int64) { state.withLock { $0.roundTripNanoseconds = nanoseconds } }

    fileprivate func sent(_ count: Int, bytes: Int) {
        state.withLock {
            $0.bytes -= bytes
            $0.count -= count
            $0.sent += UInt64(count)
        }
    }

    /// What was taken and not sent is lost with the connection.
    fileprivate func closed(unsent: ArraySlice<Message>) {
        state.withLock { state in
            state.isOpen = false
            for message in unsent { Self.forget(message, &state) }
            while state.waiting.count > limits.raftUnconnectedMax { Self.forget(state.waiting.removeFirst(), &state) }
        }
    }
}

extension Message {
    fileprivate var tellsCommitOnly: Bool {
        if case .commit = body { true } else { false }
    }
}

/// The sending end of a raft stream. Touched on `loop` only; hence `@unchecked Sendable`, to be hopped to.
private final class RaftLinkStream: PeerStream, @unchecked Sendable {
    /// Encoded and given to TLS at a time, in bytes.
    private static let burstBytes = 128 << 10

    let loop: any EventLoop
    /// Set once, before the first connection.
    weak var link: RaftLink?
    var lost: @Sendable (MemberID) -> Void = { _ in }
    private var connection: PeerConnection?
    private var backlog: ArraySlice<Message> = []
    private var pause: Scheduled<Void>?

    init(loop: any EventLoop) {
        self.loop = loop
    }

    /// The other side has its own connection for what it has to say.
    var expected: Set<FrameKind> { [] }

    func opened(_ connection: PeerConnection) {
        self.connection = connection
        link?.opened()
        drain()
    }

    func received(_ frame: Frame, on connection: PeerConnection) throws(PeerError) {
        throw PeerError(.protocolFault, "a \(frame.kind) frame on a stream that goes the other way")
    }

    func writabilityChanged(_ connection: PeerConnection) {
        if connection.isWritable { drain() }
    }

    func measured(roundTripNanoseconds: Int64) { link?.measured(roundTripNanoseconds) }

    func closed(_ connection: PeerConnection, _ error: PeerError?) {
        guard self.connection === connection else { return }
        self.connection = nil
        link?.closed(unsent: backlog)
        backlog = []
        if let link { lost(link.peer.id) }
    }

    func drainSoon() {
        // What came meanwhile took it along.
        guard pause == nil, link?.isPausing == true else { return }
        pause = loop.scheduleTask(in: RaftLink.commitPause) { [self] in drain() }
    }

    func drain() {
        pause?.cancel()
        pause = nil
        guard let connection, let link else { return }
        let fresh = link.takeWaiting()
        if backlog.isEmpty { backlog = fresh[...] } else { backlog.append(contentsOf: fresh) }
        while !backlog.isEmpty, connection.isWritable {
            var writer = ByteWriter()
            var count = 0
            var bytes = 0
            while writer.bytes.count < Self.burstBytes, let message = backlog.first {
                backlog.removeFirst()
                let size = MessageCodec.encodedBytes(of: message)
                count += 1
                bytes += RaftLink.footprint(message)
                // The core never makes one; sent, it would cost the connection.
                guard size <= MessageCodec.messageBytesMax else { continue }
                if count == 1 { writer.reserve(size + FrameReader.headerBytes) }
                writer.putFrame(.message, payloadBytes: size)
                MessageCodec.encode(message, into: &writer)
            }
            connection.write(writer.bytes)
            // It may come back here, when the socket takes everything, or end the connection: nothing is in between.
            connection.flush()
            link.sent(count, bytes: bytes)
        }
    }
}

/// The receiving end of a raft stream: messages of one member, handed on as they arrived together.
///
/// Touched on the connection's loop only; hence `@unchecked Sendable`.
final class RaftReceiver: PeerStream, @unchecked Sendable {
    private let peer: Peer
    private let own: MemberID
    private let deliver: @Sendable ([Message]) -> Void
    private let ended: (PeerError?) -> Void
    private var messages: [Message] = []

    init(
        _ peer: Peer, own: MemberID, deliver: @escaping @Sendable ([Message]) -> Void,
        ended: @escaping (PeerError?) -> Void
    ) {
        self.peer = peer
        self.own = own
        self.deliver = deliver
        self.ended = ended
    }

    var expected: Set<FrameKind> { [.message] }

    func opened(_ connection: PeerConnection) {}

    func received(_ frame: Frame, on connection: PeerConnection) throws(PeerError) {
        let message: Message
        do {
            message = try MessageCodec.decode(frame.payload.array[...])
        } catch {
            throw PeerError(.protocolFault, "`\(peer.name)` sends what is no message: \(error)")
        }
        guard message.from == peer.id, message.to == own else {
            throw PeerError(
                .protocolFault,
                "`\(peer.name)` (member id \(peer.id)) sends a message from \(message.from) to \(message.to)")
        }
        messages.append(message)
    }

    func readCompleted(_ connection: PeerConnection) {
        guard !messages.isEmpty else { return }
        let batch = messages
        messages = []
        deliver(batch)
    }

    func closed(_ connection: PeerConnection, _ error: PeerError?) { ended(error) }
}
