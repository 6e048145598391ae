// SPDX-License-Identifier: Apache-2.0
internal import FoundationEssentials
internal import Model

/// Follows `GET /v1/events` and takes up a broken connection where it ended.
struct EventWatch: Sendable {
    let client: Client
    let query: [(String, String?)]
    let terminal: Terminal

    /// Between attempts to reach the daemon again.
    private static let pauses: [Duration] = [.milliseconds(100), .milliseconds(250), .milliseconds(500), .seconds(1)]
    /// A daemon that sent nothing for this long is not there; it says something every 5 s.
    static let silence = Duration.seconds(20)

    /// Ends only by cancellation.
    /// - Throws: `CLIError` when the daemon refuses, or cannot be reached at first.
    func follow(after start: String?, each: (EventView, [UInt8]) throws -> Void) async throws {
        var place = start
        var isFirst = true
        var attempt = 0
        while true {
            do {
                try await client.events(after: place, query) { frame in
                    isFirst = false
                    attempt = 0
                    if frame.event == "compacted" { throw Self.lost(frame) }
                    if !frame.data.isEmpty {
                        let event: Answer<EventView> = try client.decode(APIReply(status: 200, body: frame.data))
                        try each(event.value, frame.data)
                    }
                    // After it was shown: what was not shown comes again.
                    if let id = frame.id { place = id }
                }
            } catch let error as CLIError where !isFirst && Self.mayPass(error) {
                if attempt == 0 { terminal.note("the connection broke: \(error.message); trying again") }
            }
            try Task.checkCancellation()
            isFirst = false
            try await terminal.sleep(Self.pauses[min(attempt, Self.pauses.count - 1)])
            attempt += 1
        }
    }

    /// Whether it is worth trying again.
    private static func mayPass(_ error: CLIError) -> Bool {
        switch error.code.flatMap({ Problem.Code(rawValue: $0) }) {
        case .noLeader, .busy, .timeout, .runtimeUnavailable: true
        case nil: error.exit == .connection || error.exit == .timeout
        default: false
        }
    }

    private static func lost(_ frame: EventFrame) -> CLIError {
        let problem = try? JSON.decode(Problem.self, from: Data(frame.data))
        return CLIError(
            .general, problem?.detail ?? "events were dropped before they were read", hint: Hints.problem(.compacted),
            code: Problem.Code.compacted.rawValue)
    }
}

/// One frame of a stream of server-sent events.
struct EventFrame: Sendable, Hashable {
    var id: String?
    var event: String?
    var data: [UInt8] = []

    /// Reads lines; a frame ends with an empty one. Comments and unknown fields count for nothing.
    struct Reader {
        private var frame = EventFrame()
        private var isEmpty = true

        /// - Parameter line: without its end.
        mutating func take(_ line: [UInt8]) -> EventFrame? {
            let line = line.last == UInt8(ascii: "\r") ? line.dropLast() : line[...]
            guard !line.isEmpty else {
                defer { self = Reader() }
                return isEmpty ? nil : frame
            }
            let colon = line.firstIndex(of: UInt8(ascii: ":")) ?? line.endIndex
            var value = line[colon...].dropFirst()
            if value.first == UInt8(ascii: " ") { value = value.dropFirst() }
            switch String(decoding: line[..<colon], as: UTF8.self) {
            case "id": frame.id = String(decoding: value, as: UTF8.self)
            case "event": frame.event = String(decoding: value, as: UTF8.self)
            case "data": frame.data += (frame.data.isEmpty ? [] : [UInt8(ascii: "\n")]) + value
            default: return nil
            }
            isEmpty = false
            return nil
        }
    }
}
