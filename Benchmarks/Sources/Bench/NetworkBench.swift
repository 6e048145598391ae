// SPDX-License-Identifier: Apache-2.0
import Foundation

/// A service's virtual address against its only endpoint's own, asked from another container's network namespace.
struct NetworkBench {
    let node: Node
    let report: Report
    let rounds: Int
    private static let port: UInt16 = 9000

    func run() throws {
        try node.put("net", services: ["client", "server"], replicas: 1, command: ["/bin/sleep", "100000"])
        let tasks = try node.waitRunning("net", 2)
        let service = try node.call("GET", "/v1/services/server?app=net") as? [String: Any]
        guard let virtual = service?["vip"] as? String,
            let address = (service?["endpoints"] as? [String])?.first,
            let server = tasks.first(where: { $0.address == address }),
            let client = tasks.first(where: { $0.address != address })
        else { throw BenchError("the service shows no endpoint: \(service ?? [:])") }

        let program = CommandLine.arguments[0]
        let echo = try Program(["nsenter", "--net=/proc/\(server.pid)/ns/net", program, "serve"])
        defer {
            echo.kill(SIGKILL)
            echo.wait()
        }
        let text = try Program.run([
            "nsenter", "--net=/proc/\(client.pid)/ns/net", program, "ask", address, virtual, "\(max(20, rounds))",
        ]).output
        var columns = [Samples](repeating: Samples(), count: 4)
        for line in text.split(separator: "\n") {
            let numbers = line.split(separator: " ").compactMap { Double($0) }
            guard numbers.count == 4 else { throw BenchError("the client said: \(text)") }
            for (index, number) in numbers.enumerated() { columns[index].add(number) }
        }
        report.row(
            "connect, request, close: virtual address", unit: "us", ours: columns[1], peer: ("direct", columns[0]),
            aim: "<= 1.05 x")
        report.row(
            "request on an open connection: virtual address", unit: "us", ours: columns[3],
            peer: ("direct", columns[2]),
            aim: "<= 1.05 x")
        try node.delete("net")
    }

    // MARK: What runs in the containers' namespaces

    /// Answers each byte with itself, one connection after the other.
    static func serve() throws {
        let listener = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        var on: Int32 = 1
        setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, 4)
        guard withAddress("0.0.0.0", port, { bind(listener, $0, $1) }) == 0, listen(listener, 128) == 0 else {
            throw BenchError("cannot listen on \(port)")
        }
        while case let connection = accept(listener, nil, nil), connection >= 0 {
            var byte: UInt8 = 0
            setsockopt(connection, Int32(IPPROTO_TCP), TCP_NODELAY, &on, 4)
            while recv(connection, &byte, 1, 0) == 1 { send(connection, &byte, 1, Int32(MSG_NOSIGNAL)) }
            close(connection)
        }
    }

    /// Prints a line per round: medians in microseconds of connections direct and virtual, of requests direct and virtual.
    static func ask(_ direct: String, _ virtual: String, rounds: Int) throws {
        for round in 0...rounds {
            var connections = (Samples(), Samples())
            for _ in 0..<300 {
                connections.0.add(try connection(direct))
                connections.1.add(try connection(virtual))
            }
            let requests = (try requests(direct, 1000), try requests(virtual, 1000))
            guard round > 0 else { continue }
            let medians = [connections.0, connections.1, requests.0, requests.1].map {
                String(format: "%.2f", $0.median)
            }
            print(medians.joined(separator: " "))
        }
    }

    private static let streamPort: UInt16 = 9001
    private static let streamSeconds = 0.5

    /// Takes what comes, one connection after the other, and closes each when its client is done.
    static func sink() throws {
        let listener = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        var on: Int32 = 1
        setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, 4)
        guard withAddress("0.0.0.0", streamPort, { bind(listener, $0, $1) }) == 0, listen(listener, 128) == 0 else {
            throw BenchError("cannot listen on \(streamPort)")
        }
        var piece = [UInt8](repeating: 0, count: 1 << 18)
        while case let connection = accept(listener, nil, nil), connection >= 0 {
            while recv(connection, &piece, piece.count, 0) > 0 {}
            close(connection)
        }
    }

    /// Prints medians in microseconds of connections and requests, and the Gbit/s of a stream.
    static func cross(_ address: String) throws {
        var connections = Samples()
        for _ in 0..<200 { connections.add(try connection(address)) }
        let numbers = [connections.median, try requests(address, 2000).median, try stream(address)]
        print(numbers.map { String(format: "%.3f", $0) }.joined(separator: " "))
    }

    private static func stream(_ address: String) throws -> Double {
        let descriptor = try open(address, streamPort)
        defer { close(descriptor) }
        let piece = [UInt8](repeating: 7, count: 1 << 17)
        var sent = 0
        let began = now()
        while now() - began < streamSeconds * 1000 {
            let count = send(descriptor, piece, piece.count, Int32(MSG_NOSIGNAL))
            guard count > 0 else { throw BenchError("the stream broke") }
            sent += count
        }
        // All of it has arrived when the other side closes.
        shutdown(descriptor, Int32(SHUT_WR))
        var byte: UInt8 = 0
        guard recv(descriptor, &byte, 1, 0) == 0 else { throw BenchError("the stream broke") }
        return Double(sent) * 8 / (now() - began) / 1e6
    }

    private static func connection(_ address: String) throws -> Double {
        let began = now()
        let descriptor = try open(address)
        try exchange(descriptor)
        close(descriptor)
        return (now() - began) * 1000
    }

    private static func requests(_ address: String, _ count: Int) throws -> Samples {
        let descriptor = try open(address)
        defer { close(descriptor) }
        var samples = Samples()
        for _ in 0..<count {
            let began = now()
            try exchange(descriptor)
            samples.add((now() - began) * 1000)
        }
        return samples
    }

    private static func exchange(_ descriptor: Int32) throws {
        var byte: UInt8 = 7
        guard send(descriptor, &byte, 1, Int32(MSG_NOSIGNAL)) == 1, recv(descriptor, &byte, 1, 0) == 1 else {
            throw BenchError("the server went away")
        }
    }

    private static func open(_ address: String, _ port: UInt16 = port) throws -> Int32 {
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        var on: Int32 = 1
        setsockopt(descriptor, Int32(IPPROTO_TCP), TCP_NODELAY, &on, 4)
        guard withAddress(address, port, { connect(descriptor, $0, $1) }) == 0 else {
            throw BenchError("cannot connect to \(address): \(String(cString: strerror(errno)))")
        }
        return descriptor
    }

    private static func withAddress(
        _ text: String, _ port: UInt16, _ body: (UnsafePointer<sockaddr>, socklen_t) -> Int32
    ) -> Int32 {
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = port.bigEndian
        inet_pton(AF_INET, text, &address.sin_addr)
        return withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { body($0, socklen_t(MemoryLayout<sockaddr_in>.size)) }
        }
    }
}
