// SPDX-License-Identifier: Apache-2.0
internal import Model

/// One record of a log file: `<RFC 3339 with nanoseconds> <stdout|stderr> <F|P> <text>`.
struct LogRecord {
    /// Where the tag stands: 30 bytes of time, a space, 6 of stream, a space.
    static let tagOffset = 38

    var at: Timestamp
    var stream: LogLine.Stream
    /// The stream's next record goes on with this line.
    var isPartial: Bool
    var text: ArraySlice<UInt8>

    /// - Parameter bytes: without the line end. Nil for what no writer of ours has written.
    init?(_ bytes: ArraySlice<UInt8>) {
        let start = bytes.startIndex
        guard bytes.count >= Self.tagOffset + 2, let tag = Self.tag(bytes) else { return nil }
        guard let at = Timestamp(String(decoding: bytes[start..<start + 30], as: UTF8.self)) else { return nil }
        self.at = at
        (stream, isPartial) = tag
        text = bytes[(start + Self.tagOffset + 2)...]
    }

    /// Stream and kind without the cost of reading the time.
    static func tag(_ bytes: ArraySlice<UInt8>) -> (stream: LogLine.Stream, isPartial: Bool)? {
        let start = bytes.startIndex
        guard bytes.count > tagOffset, bytes[start + 30] == UInt8(ascii: " ") else { return nil }
        let partial = bytes[start + tagOffset] == UInt8(ascii: "P")
        guard partial || bytes[start + tagOffset] == UInt8(ascii: "F") else { return nil }
        // stdout and stderr differ in the fourth letter.
        switch bytes[start + 34] {
        case UInt8(ascii: "o"): return (.stdout, partial)
        case UInt8(ascii: "e"): return (.stderr, partial)
        default: return nil
        }
    }
}

/// Joins the records of a line. A line is cut at `lineBytesMax`, so that a stream without line ends stays bounded.
struct LogJoiner {
    static let lineBytesMax = 1 << 20

    private var pending: [LogLine.Stream: (at: Timestamp, text: [UInt8])] = [:]

    mutating func take(_ record: LogRecord) -> LogLine? {
        var line = pending.removeValue(forKey: record.stream) ?? (record.at, [])
        line.text += record.text
        if record.isPartial, line.text.count < Self.lineBytesMax {
            pending[record.stream] = line
            return nil
        }
        return LogLine(at: line.at, stream: record.stream, text: String(decoding: line.text, as: UTF8.self))
    }

    /// What lacks its end: the writer is still at it, or was killed.
    mutating func rest() -> [LogLine] {
        defer { pending = [:] }
        return pending.map { LogLine(at: $1.at, stream: $0, text: String(decoding: $1.text, as: UTF8.self)) }
            .sorted { $0.at < $1.at }
    }
}
