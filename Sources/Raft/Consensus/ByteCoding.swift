// SPDX-License-Identifier: Apache-2.0

/// Little-endian fields at the end of a byte array.
public struct ByteWriter: Sendable {
    public private(set) var bytes: [UInt8] = []

    public init() {}

    public mutating func reserve(_ count: Int) {
        bytes.reserveCapacity(bytes.count + count)
    }

    public mutating func put<Value: FixedWidthInteger>(_ value: Value) {
        withUnsafeBytes(of: value.littleEndian) { bytes.append(contentsOf: $0) }
    }

    public mutating func put(_ block: some Collection<UInt8>) {
        bytes.append(contentsOf: block)
    }
}

/// Little-endian fields from the front of a byte slice; nil when the bytes run out, and nothing is taken then.
public struct ByteReader: Sendable {
    public private(set) var rest: ArraySlice<UInt8>

    public init(_ bytes: ArraySlice<UInt8>) {
        rest = bytes
    }

    public mutating func take<Value: FixedWidthInteger>(_ type: Value.Type) -> Value? {
        let width = MemoryLayout<Value>.size
        guard rest.count >= width else { return nil }
        let value = rest.withUnsafeBytes { $0.loadUnaligned(as: Value.self) }
        rest = rest.dropFirst(width)
        return Value(littleEndian: value)
    }

    public mutating func take(count: Int) -> [UInt8]? {
        guard count >= 0, rest.count >= count else { return nil }
        defer { rest = rest.dropFirst(count) }
        return Array(rest.prefix(count))
    }
}

extension ArraySlice<UInt8> {
    /// Eight bytes a step: segments are mostly zero at the end, and this is asked of all of it.
    public var isZero: Bool {
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
