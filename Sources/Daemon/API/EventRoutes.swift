// SPDX-License-Identifier: Apache-2.0
internal import HTTPTypes
internal import Model

/// What changes, from any index that is still kept.
enum EventRoutes {
    static let all: [Route] = [
        Route(.get, "/v1/events", reads: .local) { request in
            let filter = try request.eventFilter()
            let now = await request.backend.appliedIndex()
            // Without a place to resume from, what is new from now on.
            let start = try request.resumePosition() ?? EventPosition(index: now)
            let first = try await request.backend.events(after: start, limit: EventStream.pageEventsMax)
            var reply = APIReply(.ok, index: now)
            reply.headers[.cacheControl] = "no-store"
            reply.body = .stream(
                EventStream(backend: request.backend, filter: filter, start: start, first: first))
            return reply
        }
    ]
}

extension APIRequest {
    /// `Last-Event-ID`, which a client that reconnects sends, else `?after=`.
    func resumePosition() throws(Problem) -> EventPosition? {
        let given =
            headers[.lastEventID].map { ("Last-Event-ID", $0) } ?? query["after"].map { ("after", $0) }
        guard let (name, text) = given, !text.isEmpty else { return nil }
        guard let position = EventPosition(text) else {
            throw Problem(
                .badRequest, "\(name) \(Validation.shown(text)) is not the id of an event",
                hint: "give the id of the last event seen, like 57 or 57.2")
        }
        return position
    }

    /// `?kind=app,task` and `?namespace=`.
    func eventFilter() throws(Problem) -> EventFilter {
        var filter = EventFilter(kinds: nil, namespace: try namespaceFilter())
        guard let text = query["kind"] else { return filter }
        let kinds = text.split(separator: ",", omittingEmptySubsequences: false).map(String.init)
        if let unknown = kinds.first(where: { !EventView.kinds.contains($0) }) {
            throw Problem(
                .badRequest, "kind \(Validation.shown(unknown)) is not known",
                hint: "use some of \(EventView.kinds.joined(separator: ","))")
        }
        filter.kinds = Set(kinds)
        return filter
    }
}
