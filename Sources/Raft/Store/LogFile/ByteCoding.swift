// SPDX-License-Identifier: Apache-2.0

/// Little-endian fields at the end of a byte array.
struct ByteWriter {
    private(set) var bytes: [UInt8] = []

    mutating func put<Value: FixedWidthInteger>(_ value: Value) {
        withUnsafeBytes(of: value.littleEndian) { bytes.append(contentsOf: $0) }
    }

    mutating func put(_ block: [UInt8]) {
        bytes.append(contentsOf: block)
    }
}

/// Little-endian fields from the front of a byte slice; nil when the bytes run out.
struct ByteReader {
    private(set) var rest: ArraySlice<UInt8>

    init(_ bytes: ArraySlice<UInt8>) {
        rest = bytes
    }

    mutating func take<Value: FixedWidthInteger>(_ type: Value.Type) -> Value? {
        let width = MemoryLayout<Value>.size
        guard rest.count >= width else { return nil }
        let value = rest.withUnsafeBytes { $0.loadUnaligned(as: Value.self) }
        rest = rest.dropFirst(width)
        return Value(littleEndian: value)
    }

    mutating func take(count: Int) -> [UInt8]? {
        guard count >= 0, rest.count >= count else { return nil }
        defer { rest = rest.dropFirst(count) }
        return Array(rest.prefix(count))
    }
}

extension ArraySlice<UInt8> {
    /// Eight bytes a step: segments are mostly zero at the end, and this is asked of all of it.
    var isZero: Bool {
        withUnsafeBytes { buffer in
            var offset = 0
            while offset + 8 <= buffer.count {
                if buffer.loadUnaligned(fromByteOffset: offset, as: UInt64.self) != 0 { return false }
                offset += 8
            }
            while offset < buffer.count {
                if buffer[offset] != 0 { return false }
                offset += 1
            }
            return true
        }
    }
}
