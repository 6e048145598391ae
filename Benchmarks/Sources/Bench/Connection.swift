// SPDX-License-Identifier: Apache-2.0
import Foundation

/// A connection to a program of this machine, with a deadline on every read.
final class Connection {
    private let descriptor: Int32
    private var buffer: [UInt8] = []

    /// Over a Unix socket.
    convenience init?(_ path: String) { self.init(unix: path, seconds: 30) }

    init?(unix path: String, seconds: Int) {
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: Array(path.utf8.prefix(107))) }
        descriptor = Self.open(AF_UNIX, address, seconds: seconds)
        if descriptor < 0 { return nil }
    }

    /// Over TCP, on loopback.
    init?(port: UInt16, seconds: Int) {
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = port.bigEndian
        address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
        descriptor = Self.open(AF_INET, address, seconds: seconds)
        if descriptor < 0 { return nil }
        var on: Int32 = 1
        setsockopt(descriptor, Int32(IPPROTO_TCP), TCP_NODELAY, &on, socklen_t(MemoryLayout<Int32>.size))
    }

    private static func open<Address>(_ family: Int32, _ address: Address, seconds: Int) -> Int32 {
        let descriptor = socket(family, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        guard descriptor >= 0 else { return -1 }
        var limit = timeval(tv_sec: seconds, tv_usec: 0)
        setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
        let status = withUnsafePointer(to: address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                connect(descriptor, $0, socklen_t(MemoryLayout<Address>.size))
            }
        }
        guard status == 0 else {
            close(descriptor)
            return -1
        }
        return descriptor
    }

    deinit { if descriptor >= 0 { close(descriptor) } }

    func write(_ bytes: [UInt8]) throws {
        var sent = 0
        while sent < bytes.count {
            let count = bytes.withUnsafeBytes {
                send(descriptor, $0.baseAddress?.advanced(by: sent), bytes.count - sent, Int32(MSG_NOSIGNAL))
            }
            guard count > 0 else { throw BenchError("connection broke while writing") }
            sent += count
        }
    }

    func read(_ count: Int) throws -> [UInt8] {
        while buffer.count < count { try fill() }
        defer { buffer.removeFirst(count) }
        return Array(buffer[..<count])
    }

    /// Without its line end.
    func line() throws -> String {
        while true {
            if let end = buffer.firstIndex(of: 10) {
                defer { buffer.removeFirst(end + 1) }
                return String(decoding: buffer[..<end], as: UTF8.self).trimmingCharacters(in: ["\r"])
            }
            try fill()
        }
    }

    private func fill() throws {
        var piece = [UInt8](repeating: 0, count: 65536)
        let count = recv(descriptor, &piece, piece.count, 0)
        guard count > 0 else { throw BenchError("connection ended while reading") }
        buffer += piece[..<count]
    }
}

extension Connection {
    /// One HTTP/1.1 exchange on the open connection.
    func exchange(_ method: String, _ path: String, _ body: String? = nil) throws -> (status: Int, body: Data) {
        var text = "\(method) \(path) HTTP/1.1\r\nHost: localhost\r\n"
        if let body { text += "Content-Type: application/json\r\nContent-Length: \(body.utf8.count)\r\n" }
        try write(Array("\(text)\r\n\(body ?? "")".utf8))
        let status = Int(try line().split(separator: " ").dropFirst().first ?? "") ?? 0
        var length = 0
        var isChunked = false
        while case let header = try line().lowercased(), !header.isEmpty {
            if header.hasPrefix("content-length:") {
                length = Int(header.dropFirst(15).trimmingCharacters(in: .whitespaces)) ?? 0
            }
            if header.hasPrefix("transfer-encoding:"), header.contains("chunked") { isChunked = true }
        }
        guard isChunked else { return (status, Data(try read(length))) }
        var data = Data()
        while let size = Int(try line(), radix: 16) {
            data += try read(size)
            _ = try line()
            if size == 0 { break }
        }
        return (status, data)
    }

    /// Asks containerd's Version service by hand: a gRPC library would be the heaviest part of this package.
    func containerdAnswers() throws -> Bool {
        func frame(_ type: UInt8, _ flags: UInt8, stream: UInt8, _ payload: [UInt8]) -> [UInt8] {
            [0, UInt8(payload.count >> 8), UInt8(payload.count & 0xff), type, flags, 0, 0, 0, stream] + payload
        }
        func literal(_ name: String, _ value: String) -> [UInt8] {
            [0, UInt8(name.utf8.count)] + name.utf8 + [UInt8(value.utf8.count)] + value.utf8
        }
        // :method POST and :scheme http are in HPACK's static table.
        let headers =
            [0x83, 0x86] + literal(":path", "/containerd.services.version.v1.Version/Version")
            + literal(":authority", "localhost") + literal("content-type", "application/grpc")
            + literal("te", "trailers")
        try write(
            Array("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".utf8) + frame(4, 0, stream: 0, [])
                + frame(1, 4, stream: 1, headers) + frame(0, 1, stream: 1, [0, 0, 0, 0, 0]))
        while true {
            let head = try read(9)
            _ = try read(Int(head[0]) << 16 | Int(head[1]) << 8 | Int(head[2]))
            if head[3] == 0 { return true }
            // A trailer without data is an error's.
            if head[3] == 1, head[4] & 1 == 1 { return false }
        }
    }
}
