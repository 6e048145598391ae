// SPDX-License-Identifier: Apache-2.0
internal import NIOCore

extension DNSMessage {
    /// Names are written in full: compression pays on the hot path only, which does not come through here.
    ///
    /// - Precondition: fewer than 65536 records a section and bytes a record.
    func encode(into buffer: inout ByteBuffer) {
        buffer.writeMultipleIntegers(
            id, flags, UInt16(questions.count), UInt16(answers.count), UInt16(authorities.count),
            UInt16(additionals.count))
        for question in questions {
            buffer.write(question.name)
            buffer.writeMultipleIntegers(question.type, question.dnsClass)
        }
        for record in answers + authorities + additionals { record.encode(into: &buffer) }
    }

    var encoded: [UInt8] {
        var buffer = ByteBuffer()
        encode(into: &buffer)
        return Array(buffer.readableBytesView)
    }
}

extension DNSMessage.Record {
    var type: UInt16 {
        switch data {
        case .a: DNSType.a
        case .aaaa: DNSType.aaaa
        case .soa: DNSType.soa
        case .opt: DNSType.opt
        case .other(let type, _): type
        }
    }

    func encode(into buffer: inout ByteBuffer) {
        buffer.write(name)
        buffer.writeMultipleIntegers(type, dnsClass, ttl)
        let lengthAt = buffer.writerIndex
        buffer.writeInteger(UInt16(0))
        switch data {
        case .a(let address): buffer.writeInteger(address)
        case .aaaa(let bytes), .opt(let bytes), .other(_, let bytes): buffer.writeBytes(bytes)
        case .soa(let soa):
            buffer.write(soa.primary)
            buffer.write(soa.mailbox)
            buffer.writeMultipleIntegers(soa.serial, soa.refresh, soa.retry, soa.expire, soa.minimum)
        }
        buffer.setInteger(UInt16(buffer.writerIndex - lengthAt - 2), at: lengthAt)
    }
}

extension ByteBuffer {
    mutating func write(_ name: DNSName) {
        writeBytes(name.wire)
        writeInteger(UInt8(0))
    }
}
