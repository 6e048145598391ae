// SPDX-License-Identifier: Apache-2.0
internal import NIOCore

/// Answers of upstream servers, kept as they came. Time is a parameter.
struct AnswerCache {
    static let positiveSecondsMax: UInt32 = 300
    static let negativeSecondsMax: UInt32 = 60
    static let entriesMax = 4096
    /// Together with `entriesMax` bounds the memory: 6 MiB.
    static let entryBytesMax = 1500

    struct Key: Hashable {
        /// Lower case, with type and class.
        var question: [UInt8]
        /// Nil without EDNS; servers answer differently with it and with the DO bit.
        var wantsDNSSEC: Bool?
        var checkingDisabled: Bool
    }

    private struct Entry {
        var bytes: [UInt8]
        var ttlOffsets: [Int]
        var stored: NIODeadline
        var expires: NIODeadline
    }

    private var entries: [Key: Entry] = [:]
    var count: Int { entries.count }

    /// - Returns: the message with its TTLs counted down, its id and its question still those of the first asker.
    mutating func find(_ key: Key, now: NIODeadline) -> [UInt8]? {
        guard let entry = entries[key] else { return nil }
        guard now < entry.expires else {
            entries[key] = nil
            return nil
        }
        let age = UInt32(clamping: (now - entry.stored).nanoseconds / 1_000_000_000)
        var bytes = entry.bytes
        for offset in entry.ttlOffsets {
            let ttl = bytes[offset..<(offset + 4)].reduce(UInt32(0)) { $0 << 8 | UInt32($1) }
            let left = ttl > age ? ttl - age : 0
            for index in 0..<4 { bytes[offset + index] = UInt8(truncatingIfNeeded: left >> UInt32(24 - 8 * index)) }
        }
        return bytes
    }

    /// Does nothing when the answer must not be kept.
    mutating func store(_ key: Key, _ bytes: [UInt8], _ message: DNSMessage, ttlOffsets: [Int], now: NIODeadline) {
        guard bytes.count <= Self.entryBytesMax, let seconds = Self.lifetime(message), seconds > 0 else { return }
        if entries.count >= Self.entriesMax, entries[key] == nil { makeRoom(now) }
        entries[key] = Entry(
            bytes: bytes, ttlOffsets: ttlOffsets, stored: now, expires: now + .seconds(Int64(seconds)))
    }

    /// Seconds; nil for failures, cut answers, and negative ones without SOA (RFC 2308, 5).
    static func lifetime(_ message: DNSMessage) -> UInt32? {
        guard !message.isTruncated else { return nil }
        if message.rcode == DNSRcode.noError, !message.answers.isEmpty {
            return min(message.answers.map { seconds($0.ttl) }.min() ?? 0, positiveSecondsMax)
        }
        guard message.rcode == DNSRcode.noError || message.rcode == DNSRcode.noSuchName else { return nil }
        for record in message.authorities {
            if case .soa(let soa) = record.data {
                return min(seconds(record.ttl), seconds(soa.minimum), negativeSecondsMax)
            }
        }
        return nil
    }

    /// A TTL with the top bit set counts as zero (RFC 2181, 8).
    private static func seconds(_ ttl: UInt32) -> UInt32 { ttl >> 31 == 0 ? ttl : 0 }

    /// Throws out what has expired; when that is little, the half that would expire first, so that this stays rare.
    private mutating func makeRoom(_ now: NIODeadline) {
        entries = entries.filter { $0.value.expires > now }
        guard entries.count > Self.entriesMax / 2 else { return }
        let kept = entries.sorted { $0.value.expires > $1.value.expires }.prefix(Self.entriesMax / 2)
        entries = Dictionary(kept.map { ($0.key, $0.value) }) { first, _ in first }
    }
}
