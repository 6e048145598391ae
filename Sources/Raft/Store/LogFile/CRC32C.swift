// SPDX-License-Identifier: Apache-2.0

/// CRC-32C (Castagnoli), eight bytes at a time. Source: RFC 3720 appendix B.4 (polynomial and test values).
struct CRC32C {
    /// Table 0 advances the sum by one byte; table n by that byte and n zero bytes after it.
    private static let tables: [UInt32] = {
        var tables = [UInt32](repeating: 0, count: 8 * 256)
        for byte in 0..<256 {
            var sum = UInt32(byte)
            for _ in 0..<8 { sum = sum & 1 == 1 ? sum >> 1 ^ 0x82F6_3B78 : sum >> 1 }
            tables[byte] = sum
        }
        for index in 256..<tables.count {
            let previous = tables[index - 256]
            tables[index] = previous >> 8 ^ tables[Int(previous & 0xFF)]
        }
        return tables
    }()

    private var sum: UInt32 = ~0

    var value: UInt32 { ~sum }

    mutating func update(_ bytes: ArraySlice<UInt8>) {
        bytes.withUnsafeBytes { buffer in
            Self.tables.withUnsafeBufferPointer { table in
                var sum = sum
                var offset = 0
                while offset + 8 <= buffer.count {
                    let word = UInt64(littleEndian: buffer.loadUnaligned(fromByteOffset: offset, as: UInt64.self))
                    let low = UInt32(truncatingIfNeeded: word) ^ sum
                    let high = UInt32(truncatingIfNeeded: word >> 32)
                    let lowPart =
                        table[0x700 + Int(low & 0xFF)] ^ table[0x600 + Int(low >> 8 & 0xFF)]
                        ^ table[0x500 + Int(low >> 16 & 0xFF)] ^ table[0x400 + Int(low >> 24)]
                    let highPart =
                        table[0x300 + Int(high & 0xFF)] ^ table[0x200 + Int(high >> 8 & 0xFF)]
                        ^ table[0x100 + Int(high >> 16 & 0xFF)] ^ table[Int(high >> 24)]
                    sum = lowPart ^ highPart
                    offset += 8
                }
                while offset < buffer.count {
                    sum = sum >> 8 ^ table[Int(UInt8(truncatingIfNeeded: sum) ^ buffer[offset])]
                    offset += 1
                }
                self.sum = sum
            }
        }
    }

    static func of(_ bytes: ArraySlice<UInt8>) -> UInt32 {
        var crc = CRC32C()
        crc.update(bytes)
        return crc.value
    }
}
