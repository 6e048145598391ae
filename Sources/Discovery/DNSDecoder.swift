// SPDX-License-Identifier: Apache-2.0

extension DNSMessage {
    static func decode(_ bytes: [UInt8]) throws(DNSWireError) -> DNSMessage {
        var offsets: [Int] = []
        return try decode(bytes, ttlOffsets: &offsets)
    }

    /// - Parameter ttlOffsets: gets where each record's TTL stands in `bytes`, OPT left out (it has none).
    /// - Complexity: O(bytes) plus at most 255 bytes a name, however often names point at each other.
    static func decode(_ bytes: [UInt8], ttlOffsets: inout [Int]) throws(DNSWireError) -> DNSMessage {
        var reader = DNSReader(bytes: bytes)
        var message = DNSMessage()
        message.id = try reader.integer()
        message.flags = try reader.integer()
        let questions: UInt16 = try reader.integer()
        let answers: UInt16 = try reader.integer()
        let authorities: UInt16 = try reader.integer()
        let additionals: UInt16 = try reader.integer()
        for _ in 0..<questions {
            message.questions.append(
                Question(name: try reader.name(), type: try reader.integer(), dnsClass: try reader.integer()))
        }
        for _ in 0..<answers { message.answers.append(try reader.record(&ttlOffsets)) }
        for _ in 0..<authorities { message.authorities.append(try reader.record(&ttlOffsets)) }
        for _ in 0..<additionals { message.additionals.append(try reader.record(&ttlOffsets)) }
        return message
    }
}

struct DNSReader {
    let bytes: [UInt8]
    private(set) var at = 0

    init(bytes: [UInt8]) { self.bytes = bytes }

    mutating func integer<T: FixedWidthInteger>(_ type: T.Type = T.self) throws(DNSWireError) -> T {
        let size = T.bitWidth / 8
        guard bytes.count - at >= size else { throw .short }
        var value: T = 0
        for _ in 0..<size {
            value = value << 8 | T(truncatingIfNeeded: bytes[at])
            at += 1
        }
        return value
    }

    mutating func take(_ count: Int) throws(DNSWireError) -> [UInt8] {
        guard bytes.count - at >= count else { throw .short }
        defer { at += count }
        return Array(bytes[at..<(at + count)])
    }

    /// Each pointer must point before the part of the name it ends, so a chain always ends.
    mutating func name() throws(DNSWireError) -> DNSName {
        var wire: [UInt8] = []
        var position = at
        var limit = at
        var end: Int?
        while true {
            guard position < bytes.count else { throw .short }
            let length = Int(bytes[position])
            switch length {
            case 0:
                at = end ?? position + 1
                return DNSName(uncheckedWire: wire)
            case 1...63:
                guard bytes.count - position > length else { throw .short }
                guard wire.count + 1 + length <= DNSName.bytesMax else { throw .badName }
                wire += bytes[position...(position + length)]
                position += 1 + length
            case 0xc0...:
                guard position + 1 < bytes.count else { throw .short }
                let target = (length & 0x3f) << 8 | Int(bytes[position + 1])
                guard target < limit else { throw .badName }
                if end == nil { end = position + 2 }
                position = target
                limit = target
            default: throw .badName
            }
        }
    }

    mutating func record(_ ttlOffsets: inout [Int]) throws(DNSWireError) -> DNSMessage.Record {
        let name = try name()
        let type: UInt16 = try integer()
        let dnsClass: UInt16 = try integer()
        if type != DNSType.opt { ttlOffsets.append(at) }
        let ttl: UInt32 = try integer()
        let length = Int(try integer(UInt16.self))
        guard bytes.count - at >= length else { throw .short }
        let end = at + length
        let data: DNSMessage.RecordData
        switch type {
        case DNSType.a: data = .a(try integer())
        case DNSType.aaaa: data = .aaaa(try take(16))
        case DNSType.opt: data = .opt(try take(length))
        case DNSType.soa:
            data = .soa(
                DNSMessage.SOA(
                    primary: try self.name(), mailbox: try self.name(), serial: try integer(),
                    refresh: try integer(), retry: try integer(), expire: try integer(), minimum: try integer()))
        default: data = .other(type: type, try take(length))
        }
        guard at == end else { throw .badRecord }
        return DNSMessage.Record(name: name, dnsClass: dnsClass, ttl: ttl, data: data)
    }
}
