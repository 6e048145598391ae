// SPDX-License-Identifier: Apache-2.0
import Glibc

/// Cuts one stream into records `<time> <stream> <F|P> <text>\n`: F ends a line, P says that the next record of the
/// stream goes on with it. A line longer than `textBytesMax` becomes several records.
struct LineSplitter {
    private static let textBytesMax = 16 << 10

    private let name: [UInt8]
    private var pending: [UInt8] = []

    init(stream: String) { name = Array(stream.utf8) }

    mutating func take(_ bytes: ArraySlice<UInt8>, at time: [UInt8], record: ([UInt8]) -> Void) {
        var rest = bytes
        while !rest.isEmpty {
            let room = Self.textBytesMax - pending.count
            if let end = rest.prefix(room + 1).firstIndex(of: UInt8(ascii: "\n")) {
                record(make(time, "F", rest[..<end]))
                rest = rest[(end + 1)...]
            } else if rest.count > room {
                record(make(time, "P", rest.prefix(room)))
                rest = rest.dropFirst(room)
            } else {
                pending += rest
                rest = []
            }
        }
    }

    /// The last line of a stream may lack its line end.
    mutating func finish(at time: [UInt8], record: ([UInt8]) -> Void) {
        if !pending.isEmpty { record(make(time, "F", [])) }
    }

    private mutating func make(_ time: [UInt8], _ tag: Unicode.Scalar, _ text: ArraySlice<UInt8>) -> [UInt8] {
        var record: [UInt8] = []
        record.reserveCapacity(time.count + name.count + pending.count + text.count + 5)
        record += time
        record.append(UInt8(ascii: " "))
        record += name
        record += [UInt8(ascii: " "), UInt8(ascii: tag), UInt8(ascii: " ")]
        record += pending
        record += text
        record.append(UInt8(ascii: "\n"))
        pending.removeAll(keepingCapacity: true)
        return record
    }
}

/// `2026-03-01T12:30:05.250000000Z`
enum LineTime {
    static func now() -> [UInt8] {
        var time = timespec()
        clock_gettime(CLOCK_REALTIME, &time)
        var parts = tm()
        gmtime_r(&time.tv_sec, &parts)
        var text: [UInt8] = []
        text.reserveCapacity(30)
        func put(_ value: Int, _ width: Int, _ after: Unicode.Scalar) {
            var divisor = 1
            for _ in 1..<width { divisor *= 10 }
            while divisor > 0 {
                text.append(48 + UInt8(value / divisor % 10))
                divisor /= 10
            }
            text.append(UInt8(ascii: after))
        }
        put(Int(parts.tm_year) + 1900, 4, "-")
        put(Int(parts.tm_mon) + 1, 2, "-")
        put(Int(parts.tm_mday), 2, "T")
        put(Int(parts.tm_hour), 2, ":")
        put(Int(parts.tm_min), 2, ":")
        put(Int(parts.tm_sec), 2, ".")
        put(Int(time.tv_nsec), 9, "Z")
        return text
    }
}
