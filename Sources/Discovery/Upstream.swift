// SPDX-License-Identifier: Apache-2.0
internal import NIOCore
internal import NIOPosix
internal import Synchronization

/// Asks the nameservers of the host for names that are not ours.
///
/// Each try has a socket of its own, hence a port and an id nobody can guess. A question goes the way it came: by TCP
/// if the client asked by TCP; a cut UDP answer is passed on and the client comes back by TCP.
final class Upstream: Sendable {
    struct Limits: Sendable {
        var port = 53
        var tryTimeout = TimeAmount.seconds(2)
        var tries = 2
        /// Each holds one file descriptor.
        var outstandingMax = 1024
        var checkInterval = TimeAmount.seconds(1)
    }

    struct Request: Sendable {
        /// Name, type and class as the client wrote them.
        var question: [UInt8]
        var flags: UInt16
        /// Nil without EDNS. The client's options go no further.
        var edns: DNSQuery.EDNS?
        var overTCP: Bool
        /// The most bytes the client takes.
        var limit: Int
    }

    private struct State {
        var configuration = ResolverConfiguration(servers: [], stamp: nil)
        var own: Set<String> = ["169.254.20.10"]
        var checked: NIODeadline?
        /// The server that answered last: a dead first one costs its timeout once, not each time.
        var preferred = 0
        var outstanding = 0
    }

    private let path: String
    private let limits: Limits
    private let state = Mutex(State())
    private let cache = Mutex(AnswerCache())

    init(path: String, limits: Limits = Limits()) {
        self.path = path
        self.limits = limits
    }

    var outstanding: Int { state.withLock { $0.outstanding } }

    /// Reads the configuration for the first time.
    ///
    /// - Parameter own: the address we listen on, never asked.
    func open(own: String) async throws {
        // One of our tests' upstreams may share the address and differ by its port.
        state.withLock { if limits.port == 53 { $0.own.insert(own) } }
        try await NIOThreadPool.singleton.runIfActive { self.reload() }
    }

    /// - Returns: a whole answer to the question, its id arbitrary; nil when it is a failure of ours to get one.
    func ask(_ request: Request, on loop: any EventLoop) -> EventLoopFuture<ByteBuffer?> {
        refreshWhenDue()
        let key = AnswerCache.Key(
            question: request.question.map(lowercase), wantsDNSSEC: request.edns?.wantsDNSSEC,
            checkingDisabled: request.flags & DNSFlags.checkingDisabled != 0)
        if let bytes = cache.withLock({ $0.find(key, now: .now()) }), bytes.count <= request.limit {
            return loop.makeSucceededFuture(Self.restored(bytes, request))
        }
        let order: [SocketAddress]? = state.withLock { state in
            let servers = state.configuration.servers
            guard !servers.isEmpty, state.outstanding < limits.outstandingMax else { return nil }
            state.outstanding += 1
            let first = state.preferred % servers.count
            return Array(servers[first...] + servers[..<first])
        }
        guard let order else { return loop.makeSucceededFuture(nil) }
        let answer = attempt(0, order, request, on: loop)
        answer.whenComplete { _ in self.state.withLock { $0.outstanding -= 1 } }
        return answer.map { received in
            guard let received else { return nil }
            self.cache.withLock {
                $0.store(key, received.bytes, received.message, ttlOffsets: received.ttlOffsets, now: .now())
            }
            return Self.restored(received.bytes, request)
        }
    }

    /// Failing servers are followed by the next; the last one's failure is passed on.
    private func attempt(
        _ number: Int, _ order: [SocketAddress], _ request: Request, on loop: any EventLoop
    ) -> EventLoopFuture<UpstreamAnswer?> {
        let server = order[number % order.count]
        let isLast = number + 1 >= limits.tries
        return UpstreamExchange.run(request, server: server, timeout: limits.tryTimeout, on: loop).flatMap { answer in
            if !answer.isFailure {
                self.state.withLock { $0.preferred = $0.configuration.servers.firstIndex(of: server) ?? 0 }
            } else if !isLast, order.count > 1 {
                return self.attempt(number + 1, order, request, on: loop)
            }
            return loop.makeSucceededFuture(answer)
        }.flatMapError { _ in
            isLast ? loop.makeSucceededFuture(nil) : self.attempt(number + 1, order, request, on: loop)
        }
    }

    /// The question as this client wrote it: an answer may come from the cache or a server that changes case.
    private static func restored(_ bytes: [UInt8], _ request: Request) -> ByteBuffer {
        var buffer = ByteBuffer(bytes: bytes)
        buffer.setBytes(request.question, at: DNSQuery.headerLength)
        return buffer
    }

    private func refreshWhenDue() {
        let now = NIODeadline.now()
        let isDue = state.withLock { state in
            if let checked = state.checked, now - checked < limits.checkInterval { return false }
            state.checked = now
            return true
        }
        // File reads stay off the event loop; this question still goes to the servers known so far.
        if isDue { NIOThreadPool.singleton.submit { if case .active = $0 { self.reload() } } }
    }

    private func reload() {
        let (known, own) = state.withLock { ($0.configuration.stamp, $0.own) }
        let stamp = ResolverConfiguration.stamp(path)
        guard stamp != known || stamp == nil else { return }
        let fresh = ResolverConfiguration.read(path, port: limits.port, skipping: own)
        state.withLock { state in
            if fresh.servers != state.configuration.servers { state.preferred = 0 }
            state.configuration = fresh
        }
    }
}
