// SPDX-License-Identifier: Apache-2.0
internal import Model
internal import NIOCore

/// Which events a client wants.
struct EventFilter: Hashable, Sendable {
    /// Nil for all.
    var kinds: Set<String>?
    /// Nil for all; objects without a namespace are in none.
    var namespace: String?

    func matches(_ event: EventView) -> Bool {
        if let kinds, !kinds.contains(event.kind) { return false }
        if let namespace, event.namespace != namespace { return false }
        return true
    }
}

/// Events as server-sent events, read from the state page by page as the client takes them: a slow client holds a place
/// in the log and no memory, and when what it has not seen yet is no longer kept it is told so instead of losing it.
///
/// Ids are places to resume from: `57` after the last event of entry 57, `57.2` after one in the middle.
/// Source: WHATWG HTML, 9.2 (server-sent events).
struct EventStream: BodySource {
    let backend: any Backend
    let filter: EventFilter
    /// Where the client resumes.
    let start: EventPosition
    /// What follows `start`, read before the answer began so that `compacted` could be one.
    let first: EventPage

    /// Events read at once.
    static let pageEventsMax = 128
    /// What is gathered before a write, in bytes.
    private static let writeBytesMax = 32 << 10

    var contentType: String { "text/event-stream" }
    var isEndless: Bool { true }
    var resumes: Bool { true }

    func produce(to writer: BodyStreamWriter, limits: RequestLimits) async throws {
        var position = start
        var page = first
        try await writer.write(await bookmark(position))
        var sentAt = ContinuousClock.now
        while true {
            if try await send(page, to: writer) { sentAt = .now }
            position = max(position, page.end)
            if !page.hasMore {
                try await backend.waitForIndex(
                    beyond: position.index, limit: limits.bookmark - (ContinuousClock.now - sentAt))
            }
            if ContinuousClock.now - sentAt >= limits.bookmark {
                try await writer.write(await bookmark(position))
                sentAt = .now
            }
            do {
                page = try await backend.events(after: position, limit: Self.pageEventsMax)
            } catch let problem as Problem where problem.code == .compacted {
                return try await writer.write(Self.frame(event: "compacted", id: nil, data: problem))
            }
        }
    }

    /// - Returns: whether there was anything to send.
    private func send(_ page: EventPage, to writer: BodyStreamWriter) async throws -> Bool {
        var buffer = ByteBuffer()
        var hasSent = false
        for (place, event) in page.events.enumerated() where filter.matches(event) {
            var event = event
            if event.change != .deleted { event.object = try await backend.object(of: event) }
            let next = place + 1 < page.events.count ? EventPosition(index: page.events[place + 1].index) : page.end
            // The last one of its entry stands for the whole entry.
            let isLast = next.index > event.index || next.sub == nil && place + 1 == page.events.count
            let id = EventPosition(index: event.index, sub: isLast ? nil : event.sub)
            buffer.writeImmutableBuffer(try Self.frame(event: event.kind, id: id, data: event))
            hasSent = true
            if buffer.readableBytes >= Self.writeBytesMax {
                try await writer.write(buffer)
                buffer.clear()
            }
        }
        if buffer.readableBytes > 0 { try await writer.write(buffer) }
        return hasSent
    }

    /// Tells the client how far it is when nothing happens that it wants. A frame without data moves the client's place
    /// and is no event.
    private func bookmark(_ position: EventPosition) async -> ByteBuffer {
        let applied = await backend.appliedIndex()
        // The place of a client that is ahead of this node stays where it is.
        return ByteBuffer(
            string: applied < position.index
                ? ": bookmark \(applied)\n\n" : ": bookmark \(position.index)\nid: \(position)\n\n")
    }

    private static func frame(event: String, id: EventPosition?, data: some Encodable) throws -> ByteBuffer {
        var buffer = ByteBuffer()
        if let id { buffer.writeString("id: \(id)\n") }
        buffer.writeString("event: \(event)\ndata: ")
        // One line: JSON writes line ends in text as `\n`.
        buffer.writeBytes(try JSON.encode(data))
        buffer.writeString("\n\n")
        return buffer
    }
}

extension EventPosition: Comparable {
    static func < (left: Self, right: Self) -> Bool {
        left.index != right.index ? left.index < right.index : (left.sub ?? .max) < (right.sub ?? .max)
    }
}
