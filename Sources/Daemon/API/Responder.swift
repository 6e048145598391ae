// SPDX-License-Identifier: Apache-2.0
internal import HTTPTypes
internal import HummingbirdCore
internal import Logging
internal import Model
internal import NIOCore

/// One request from head to answer: find the route, read the body, run the handler before its deadline, write.
struct Responder: Sendable {
    let routes: RouteTable
    let authentication: Authentication
    let backend: any Backend
    let spool: Spool
    let limits: RequestLimits
    let metrics: APIMetrics
    let logger: Logger

    /// What is read and forgotten of a body nobody wanted before the connection is closed.
    private static let discardBytesMax: Int64 = 64 << 20
    /// The same for whoever is not known.
    private static let strangerBytesMax: Int64 = 64 << 10

    /// Thrown to close the connection after the answer was written.
    private struct ConnectionEnds: Error {}

    func respond(_ request: Request, _ writer: consuming ResponseWriter, _ channel: any Channel) async throws {
        let started = NIODeadline.now()
        let id = Self.requestID(request.headers[.requestID])
        var body: BodyReader?
        var reply: APIReply
        do {
            reply = try await answer(request, id, &body, writer, channel, started)
            try admit(reply, request)
        } catch let broken as BodyReader.Broken {
            throw broken.cause
        } catch {
            var problem = Problem.from(error, logger: named(id))
            problem.requestId = id
            reply = .problem(problem)
            authentication.note(problem, request, channel)
            if problem.code == .unauthenticated { reply.headers[.wwwAuthenticate] = "Bearer" }
            if let allow = (error as? RouteFault)?.allow { reply.headers[.allow] = allow }
        }
        reply.headers[.requestID] = id
        let micros = UInt64(max(0, (NIODeadline.now() - started).nanoseconds / 1000))
        metrics.answered(status: reply.status.code, microseconds: micros)
        logger.debug(
            "request answered",
            metadata: [
                "request": "\(id)", "method": "\(request.method.rawValue)", "path": "\(request.uri.path)",
                "status": "\(reply.status.code)", "microseconds": "\(micros)",
            ])
        try await write(reply, request, id, &body, writer, channel)
    }

    /// Counts a stream without an end.
    private func admit(_ reply: APIReply, _ request: Request) throws(Problem) {
        guard case .stream(let source) = reply.body, source.isEndless, request.method != .head else { return }
        guard metrics.streamBegan(max: limits.streamsMax) else {
            throw Problem(
                .busy, "\(limits.streamsMax) streams are open on this node already",
                hint: "end some of those that follow logs or events, or ask another node")
        }
    }

    /// The log with the request's id. Made when there is something to say: most requests say nothing.
    private func named(_ id: String) -> Logger {
        var logger = logger
        logger[metadataKey: "request"] = "\(id)"
        return logger
    }

    private func answer(
        _ request: Request, _ id: String, _ body: inout BodyReader?, _ writer: borrowing ResponseWriter,
        _ channel: any Channel, _ started: NIODeadline
    ) async throws -> APIReply {
        let (route, names) = try routes.find(request.method, path: request.uri.path)
        let caller = route.isPublic ? .nobody : try await authentication.caller(request.headers, backend, channel)
        var context = try APIRequest(
            id: id, backend: backend, metrics: metrics, caller: caller, names: names, query: request.uri.query,
            headers: request.headers)
        try Authorization.judge(caller, route, namespace: try context.namespaceFilter())
        try context.refuseUnheeded(route)
        let deadline = started + TimeAmount(route.isImageWork ? limits.image : limits.ordinary)

        if route.body != .none {
            var reader = BodyReader(request, deadline: deadline)
            defer { body = reader }
            let jsonBytesMax = route.isPublic ? Int(Self.strangerBytesMax) : limits.jsonBytesMax
            try reader.refuse(above: route.body == .json ? Int64(jsonBytesMax) : limits.archiveBytesMax)
            if request.headers[.expect]?.lowercased() == "100-continue" {
                try await writer.writeInformationalHead(HTTPResponse(status: .continue))
            }
            // Ends the waiting for a body that does not come.
            let timer = channel.eventLoop.scheduleTask(deadline: deadline) { channel.close(mode: .input, promise: nil) }
            defer { timer.cancel() }
            if route.body == .json {
                context.body = try await reader.collect(upTo: jsonBytesMax)
            } else {
                context.archive = try await spool.store(&reader)
            }
        }

        let ready = context
        let identity = try RequestIdentity.of(request, namespace: try context.namespaceFilter())
        let result: Result<APIReply, any Error>
        do {
            result = .success(
                try await route.endsByItself
                    ? run(route, ready, identity)
                    : withDeadline(deadline, drain: limits.drain, on: channel.eventLoop) {
                        try await run(route, ready, identity)
                    })
        } catch {
            result = .failure(error)
        }
        if let archive = ready.archive { await spool.remove(archive, logger: named(id)) }
        return try result.get()
    }

    private func run(_ route: Route, _ request: APIRequest, _ identity: String?) async throws -> APIReply {
        if let standard = route.reads {
            let consistency = request.consistency ?? standard
            if consistency == .linearizable { return try await readWhileConfirmed(route, request) }
            try await request.backend.readBarrier(consistency)
            if consistency == .local, let alone = request.backend.leaderlessMilliseconds {
                var reply = try await route.handler(request)
                reply.headers[.hivemindLeaderless] = String(alone)
                return reply
            }
        }
        guard let identity else { return try await route.handler(request) }
        return try await RequestIdentity.$current.withValue(identity) { try await route.handler(request) }
    }

    /// Reads while the members confirm what is current. What was read counts when the state already had everything by
    /// then, which is the rule when little is written; else it is read once more.
    private func readWhileConfirmed(_ route: Route, _ request: APIRequest) async throws -> APIReply {
        let applied = request.backend.appliedIndex
        async let early = outcome(of: route, request)
        let needed = try await request.backend.readBarrier(.linearizable)
        let reply = await early
        return try applied >= needed ? reply.get() : await route.handler(request)
    }

    private func outcome(of route: Route, _ request: APIRequest) async -> Result<APIReply, any Error> {
        do { return .success(try await route.handler(request)) } catch { return .failure(error) }
    }

    private func write(
        _ reply: APIReply, _ request: Request, _ id: String, _ body: inout BodyReader?,
        _ writer: consuming ResponseWriter, _ channel: any Channel
    ) async throws {
        var reply = reply
        if request.method == .head {
            if case .bytes(let bytes) = reply.body { reply.headers[.contentLength] = String(bytes.readableBytes) }
            reply.body = .empty
        } else if case .stream(let source) = reply.body {
            reply.headers[.contentType] = source.contentType
            if source.isEndless { reply.headers[.connection] = "close" } else { metrics.streamBegan() }
            defer { metrics.streamEnded() }
            let bodyWriter = try await writer.writeHead(HTTPResponse(status: reply.status, headerFields: reply.headers))
            do {
                try await BodyStream(
                    source: source, limits: limits, mayGoOn: authentication.watch(request.headers, backend, channel)
                ).send(to: bodyWriter, of: request, on: channel)
            } catch {
                if let problem = error as? Problem { authentication.note(problem, request, channel) }
                logger.debug("stream ended early", metadata: ["request": "\(id)", "error": "\(error)"])
                throw error
            }
            return
        }

        var reader = body ?? BodyReader(request, deadline: .now() + .seconds(10))
        // Another request cannot follow a body that was not read.
        if reader.hasBody, !reader.isEnded, reply.status.code >= 400 { reply.headers[.connection] = "close" }
        let closes = reply.headers[.connection] == "close"
        switch reply.body {
        case .bytes(let bytes):
            reply.headers[.contentLength] = String(bytes.readableBytes)
            try await writer.write(
                response: HTTPResponse(status: reply.status, headerFields: reply.headers),
                body: ResponseBody(byteBuffer: bytes))
        case .empty, .stream:
            if request.method != .head, reply.status != .noContent { reply.headers[.contentLength] = "0" }
            try await writer.writeResponse(HTTPResponse(status: reply.status, headerFields: reply.headers))
        }
        // Without a body there is nothing in the way of the next request.
        if reader.hasBody, !reader.isEnded {
            let timer = channel.eventLoop.scheduleTask(in: .seconds(10)) { channel.close(promise: nil) }
            defer { timer.cancel() }
            let most = reply.status == .unauthorized ? Self.strangerBytesMax : Self.discardBytesMax
            do { try await reader.discard(upTo: most) } catch { throw ConnectionEnds() }
        }
        if closes || (reader.hasBody && !reader.isEnded) { throw ConnectionEnds() }
    }

    /// The client's, when it is one that can stand in a log, else a new one.
    private static func requestID(_ given: String?) -> String {
        if let given, (1...64).contains(given.utf8.count),
            given.unicodeScalars.allSatisfy({
                switch $0 {
                case "a"..."z", "A"..."Z", "0"..."9", "-", "_", ".": true
                default: false
                }
            })
        {
            return given
        }
        return newID()
    }
}
