// SPDX-License-Identifier: Apache-2.0
internal import HTTPClient
internal import Synchronization

/// HTTP over TLS to the nodes of a context. Nobody's certificate is believed but those of its authority; a node that cannot
/// be reached is passed over for the next one.
struct RemoteTransport: Transport {
    let context: Context
    private let client = HTTPClient(userAgent: "hivemind", transfersMax: 4)
    private let order: AddressOrder

    init(_ context: Context) {
        self.context = context
        order = AddressOrder(context.addresses)
    }

    func send(_ request: APIRequest) async throws -> APIReply {
        var faults: [String] = []
        for address in order.addresses {
            let started = ContinuousClock.now
            do {
                let reply = APIReply(try await client.send(http(request, address)))
                order.prefer(address)
                return reply
            } catch {
                faults.append(try passOver(error, request, address, took: ContinuousClock.now - started))
            }
        }
        throw unreachable(faults)
    }

    func lines(_ request: APIRequest) -> AsyncThrowingStream<[UInt8], any Error> {
        stream(request) { $0.lines($1) }
    }

    func pieces(_ request: APIRequest) -> AsyncThrowingStream<[UInt8], any Error> {
        stream(request) { $0.pieces($1) }
    }

    private func stream(
        _ request: APIRequest, _ open: @escaping RemoteLines.Open
    ) -> AsyncThrowingStream<[UInt8], any Error> {
        let lines = RemoteLines(transport: self, request: request, open: open)
        return AsyncThrowingStream { try await lines.next() }
    }

    // MARK: - One address

    /// While others could answer, little time is given to one that is silent.
    private var connectLimit: Duration { context.addresses.count > 1 ? .seconds(2) : .seconds(5) }

    private func http(_ request: APIRequest, _ address: String) -> HTTPRequest {
        var http = request.http(base: "https://\(address)")
        http.limits.connect = connectLimit
        if let authority = context.authority {
            http.trust = .authority(authority)
            if let token = context.token { http.headers["Authorization"] = "Bearer \(token)" }
        } else {
            // Nobody is known yet: nothing that is secret may be said.
            http.trust = .unverified
        }
        return http
    }

    /// What to say of an address at which nothing was asked yet, so that the next may be.
    /// - Throws: what else went wrong.
    private func passOver(
        _ error: HTTPError, _ request: APIRequest, _ address: String, took: Duration
    ) throws -> String {
        switch error.code {
        case .couldNotConnect, .tls: return "\(address): \(error.message)"
        case .timeout:
            // A connection that did not come to stand, unless the request itself had no more time.
            let isConnecting = took < connectLimit + .seconds(1) && (request.timeout.map { $0 > took } ?? true)
            if isConnecting { return "\(address): no answer within \(connectLimit.components.seconds) s" }
            throw CLIError(
                .timeout, "\(address) gave no answer to \(request.method) \(request.path) in time",
                hint: "look at `hivemind status`, then try again")
        case .connectionLost:
            throw CLIError(
                .connection, "the connection to \(address) broke during \(request.method) \(request.path)",
                hint: "look at `hivemind status`; a change may have been made or not")
        case .cancelled: throw CancellationError()
        default: throw CLIError(.general, error.message, hint: error.hint)
        }
    }

    private func unreachable(_ faults: [String]) -> CLIError {
        CLIError(
            .connection, "no node of context `\(context.name)` answers: \(faults.joined(separator: "; "))",
            hint:
                "see that one of them is up and this machine reaches its TCP port; if the cluster exchanged its authority, add "
                + "the context again"
        )
    }

    /// Lines of the first node that can be reached. An actor only because the stream that pulls from it must be sendable.
    private actor RemoteLines {
        typealias Open = @Sendable (HTTPClient, HTTPRequest) -> AsyncThrowingStream<[UInt8], any Error>

        private let transport: RemoteTransport
        private let request: APIRequest
        private let open: Open
        private var waiting: [String]
        private var faults: [String] = []
        private var lines: LineIterator?
        private var address = ""
        private var hasBegun = false
        private var started = ContinuousClock.now

        init(transport: RemoteTransport, request: APIRequest, open: @escaping Open) {
            self.transport = transport
            self.open = open
            self.request = request
            waiting = transport.order.addresses
        }

        func next() async throws -> [UInt8]? {
            while true {
                do {
                    let line = try await current().next()
                    hasBegun = true
                    transport.order.prefer(address)
                    return line
                } catch let error as HTTPError {
                    if error.code == .status, let response = error.response {
                        throw RefusedReply(reply: APIReply(response))
                    }
                    lines = nil
                    // After the first line it is no longer known how far it would have to begin again.
                    let took = hasBegun ? .seconds(3_600) : ContinuousClock.now - started
                    let fault = try transport.passOver(error, request, address, took: took)
                    guard !hasBegun else { throw transport.unreachable([fault]) }
                    faults.append(fault)
                }
            }
        }

        private func current() throws -> LineIterator {
            if let lines { return lines }
            guard !waiting.isEmpty else { throw transport.unreachable(faults) }
            address = waiting.removeFirst()
            started = .now
            let made = LineIterator(open(transport.client, transport.http(request, address)).makeAsyncIterator())
            lines = made
            return made
        }
    }
}

/// The address that answered last is asked first.
private final class AddressOrder: Sendable {
    private let list: Mutex<[String]>

    init(_ addresses: [String]) { list = Mutex(addresses) }

    var addresses: [String] { list.withLock { $0 } }

    func prefer(_ address: String) {
        list.withLock { list in
            guard list.first != address, let place = list.firstIndex(of: address) else { return }
            list.remove(at: place)
            list.insert(address, at: 0)
        }
    }
}
