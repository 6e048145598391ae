// SPDX-License-Identifier: Apache-2.0
internal import Model
internal import NIOCore
internal import Synchronization

/// Turns a query into an answer from the table, or says that it is for the upstream. No I/O.
final class Responder: Sendable {
    /// Seconds. A virtual address is stable, but an app may be deleted and another take its address.
    static let addressTTL: UInt32 = 5
    static let endpointTTL: UInt32 = 1
    static let negativeTTL: UInt32 = 5
    /// What we take over UDP, and the most we send a client that says it takes more.
    static let ednsPayload: UInt16 = 1232
    static let udpBytesMax = 4096
    private static let addressRecordLength = 16
    private static let optLength = 11

    private let table = Mutex<Table?>(nil)

    /// Arrays a channel keeps so that a query allocates nothing but its answer.
    struct Scratch {
        var name: [UInt8] = []
        var key: [UInt8] = []
    }

    enum Outcome {
        case answer(ByteBuffer)
        case forward(DNSQuery)
        case drop
    }

    func publish(_ table: NameTable) {
        let compiled = Table(table)
        self.table.withLock { $0 = compiled }
    }

    /// - Parameters:
    ///   - packet: one DNS message, without TCP's length.
    ///   - client: source address, nil when not IPv4.
    func respond(
        to packet: ByteBuffer, from client: UInt32?, overTCP: Bool, allocator: ByteBufferAllocator,
        scratch: inout Scratch
    ) -> Outcome {
        let query: DNSQuery
        switch DNSQuery.parse(packet, name: &scratch.name) {
        case .ignored: return .drop
        case .malformed(let id, let flags):
            let bare = DNSQuery(id: id, flags: flags, questionLength: 0, type: 0, dnsClass: 0, edns: nil)
            return .answer(Self.refusal(bare, packet, DNSRcode.formatError, allocator))
        case .query(let parsed): query = parsed
        }
        guard query.flags & DNSFlags.opcode == 0 else {
            return .answer(Self.refusal(query, packet, DNSRcode.notImplemented, allocator))
        }
        if let edns = query.edns, edns.version != 0 {
            // BADVERS is 16: its upper bits stand in the OPT record.
            return .answer(Self.refusal(query, packet, DNSRcode.noError, allocator, extendedRcode: 1))
        }
        guard query.dnsClass == DNSClass.internet || query.dnsClass == DNSClass.any else {
            return .answer(Self.refusal(query, packet, DNSRcode.refused, allocator))
        }
        guard let table = table.withLock({ $0 }) else {
            // Single labels may be names of services: an upstream's "no such name" would be believed.
            let isOurs = Table.isInZone(scratch.name) || Self.isSingleLabel(scratch.name)
            return isOurs ? .answer(Self.refusal(query, packet, DNSRcode.serverFailure, allocator)) : .forward(query)
        }
        var answer = Answer(query, packet, allocator, limit: Self.limit(query, overTCP: overTCP))
        switch table.find(scratch.name, client: client, key: &scratch.key) {
        case .foreign: return .forward(query)
        case .noSuchName: answer.finishEmpty(DNSRcode.noSuchName, serial: table.serial)
        case .noData: answer.finishEmpty(DNSRcode.noError, serial: table.serial)
        case .zone:
            if query.type == DNSType.soa || query.type == DNSType.any {
                answer.finishZone(serial: table.serial)
            } else {
                answer.finishEmpty(DNSRcode.noError, serial: table.serial)
            }
        case .service(let addresses, let tasks):
            if query.type != DNSType.a && query.type != DNSType.any {
                answer.finishEmpty(DNSRcode.noError, serial: table.serial)
            } else if let vip = addresses.vip, !tasks {
                answer.finishAddress(vip)
            } else if addresses.endpoints.isEmpty {
                answer.finishEmpty(DNSRcode.noError, serial: table.serial)
            } else {
                answer.finishEndpoints(addresses)
            }
        }
        return .answer(answer.buffer)
    }

    /// An answer without records: header, question if there is one, OPT if there was one.
    static func refusal(
        _ query: DNSQuery, _ packet: ByteBuffer, _ rcode: UInt16, _ allocator: ByteBufferAllocator,
        extendedRcode: UInt8 = 0
    ) -> ByteBuffer {
        var answer = Answer(query, packet, allocator, limit: udpBytesMax)
        answer.finish(rcode: rcode, answers: 0, authorities: 0, flags: 0, extendedRcode: extendedRcode)
        return answer.buffer
    }

    /// The most bytes an answer may have.
    static func limit(_ query: DNSQuery, overTCP: Bool) -> Int {
        if overTCP { return Int(UInt16.max) }
        guard let edns = query.edns else { return 512 }
        return min(max(Int(edns.payload), 512), udpBytesMax)
    }

    private static func isSingleLabel(_ name: [UInt8]) -> Bool {
        guard let first = name.first else { return false }
        return name.count == 1 + Int(first)
    }

    /// One answer being written. The question is copied as it came, so its case is kept; records point back to it.
    private struct Answer {
        var buffer: ByteBuffer
        let query: DNSQuery
        let limit: Int

        init(_ query: DNSQuery, _ packet: ByteBuffer, _ allocator: ByteBufferAllocator, limit: Int) {
            self.query = query
            self.limit = limit
            buffer = allocator.buffer(capacity: 128 + query.questionLength)
            buffer.writeMultipleIntegers(query.id, UInt16(0), UInt16(query.questionLength > 0 ? 1 : 0))
            buffer.writeMultipleIntegers(UInt16(0), UInt16(0), UInt16(query.edns == nil ? 0 : 1))
            let start = packet.readerIndex + DNSQuery.headerLength
            if let question = packet.viewBytes(at: start, length: query.questionLength) { buffer.writeBytes(question) }
        }

        mutating func finishAddress(_ address: UInt32) {
            writeAddress(address, ttl: Responder.addressTTL)
            finish(rcode: DNSRcode.noError, answers: 1, authorities: 0)
        }

        /// As many as fit; a cut answer is never empty, for old musl takes what is there and never asks again by TCP.
        mutating func finishEndpoints(_ addresses: ServiceAddresses) {
            let all = addresses.endpoints
            let room = limit - buffer.writerIndex - (query.edns == nil ? 0 : Responder.optLength)
            let count = min(all.count, room / Responder.addressRecordLength)
            var index = addresses.nextStart()
            for _ in 0..<count {
                writeAddress(all[index], ttl: Responder.endpointTTL)
                index = index + 1 == all.count ? 0 : index + 1
            }
            finish(
                rcode: DNSRcode.noError, answers: UInt16(count), authorities: 0,
                flags: DNSFlags.authoritative | (count < all.count ? DNSFlags.truncated : 0))
        }

        mutating func finishEmpty(_ rcode: UInt16, serial: UInt32) {
            writeSOA(serial: serial)
            finish(rcode: rcode, answers: 0, authorities: 1)
        }

        mutating func finishZone(serial: UInt32) {
            writeSOA(serial: serial)
            finish(rcode: DNSRcode.noError, answers: 1, authorities: 0)
        }

        mutating func finish(
            rcode: UInt16, answers: UInt16, authorities: UInt16, flags: UInt16 = DNSFlags.authoritative,
            extendedRcode: UInt8 = 0
        ) {
            if let edns = query.edns {
                buffer.writeMultipleIntegers(UInt8(0), DNSType.opt, Responder.ednsPayload, extendedRcode, UInt8(0))
                buffer.writeMultipleIntegers(UInt16(edns.wantsDNSSEC ? 0x8000 : 0), UInt16(0))
            }
            let echoed = query.flags & (DNSFlags.opcode | DNSFlags.recursionDesired | DNSFlags.checkingDisabled)
            buffer.setInteger(DNSFlags.response | DNSFlags.recursionAvailable | echoed | flags | rcode, at: 2)
            buffer.setInteger(answers, at: 6)
            buffer.setInteger(authorities, at: 8)
        }

        private mutating func writeAddress(_ address: UInt32, ttl: UInt32) {
            buffer.writeMultipleIntegers(
                UInt16(0xc00c), DNSType.a, DNSClass.internet, ttl, UInt16(4), address)
        }

        private mutating func writeSOA(serial: UInt32) {
            let owner = UInt16(buffer.writerIndex)
            buffer.write(Table.zone)
            buffer.writeMultipleIntegers(DNSType.soa, DNSClass.internet, Responder.negativeTTL)
            let lengthAt = buffer.writerIndex
            buffer.writeInteger(UInt16(0))
            for label in ["ns", "hostmaster"] {
                buffer.writeInteger(UInt8(label.utf8.count))
                buffer.writeString(label)
                buffer.writeInteger(0xc000 | owner)
            }
            buffer.writeMultipleIntegers(
                serial, UInt32(3600), UInt32(600), UInt32(86400), Responder.negativeTTL)
            buffer.setInteger(UInt16(buffer.writerIndex - lengthAt - 2), at: lengthAt)
        }
    }
}
