// SPDX-License-Identifier: Apache-2.0
import Model
import NIOCore
import Testing

@testable import Discovery

func address(_ text: String) -> IPv4Address { IPv4Address(text) ?? IPv4Address(value: 0) }

func addresses(_ prefix: String, _ count: Int) -> [IPv4Address] {
    (0..<count).map { IPv4Address(value: address(prefix).value + UInt32($0)) }
}

func service(
    _ app: String, _ service: String, namespace: String = "default", isAppDefault: Bool = false, vip: String? = nil,
    endpoints: [IPv4Address] = []
) -> NamedService {
    NamedService(
        app: ObjectKey(namespace: namespace, name: app), service: service, isAppDefault: isAppDefault,
        vip: vip.map(address), endpoints: endpoints)
}

/// `shop` has three services and no default, `web` one, `quiet` none ready, `many` more than fit; `web` also in `prod`.
func sampleTable() -> NameTable {
    NameTable(
        index: 7,
        services: [
            service("web", "web", isAppDefault: true, vip: "10.211.0.1", endpoints: addresses("10.210.0.10", 3)),
            service("shop", "db", vip: "10.211.0.2", endpoints: addresses("10.210.0.20", 1)),
            service("shop", "web", vip: "10.211.0.3", endpoints: addresses("10.210.0.30", 1)),
            service("shop", "ring", endpoints: addresses("10.210.0.40", 3)),
            service("quiet", "quiet", isAppDefault: true, vip: "10.211.0.4"),
            service("empty", "empty", isAppDefault: true),
            service("many", "many", isAppDefault: true, endpoints: addresses("10.210.1.0", 60)),
            service("huge", "huge", isAppDefault: true, endpoints: addresses("10.210.2.0", 400)),
            service("web", "web", namespace: "prod", isAppDefault: true, vip: "10.211.1.1"),
        ],
        clients: [
            NameClient(address: address("10.210.0.10"), app: ObjectKey(name: "web")),
            NameClient(address: address("10.210.0.20"), app: ObjectKey(name: "shop")),
            NameClient(address: address("10.210.9.1"), app: ObjectKey(namespace: "prod", name: "web")),
            NameClient(address: address("127.0.0.20"), app: ObjectKey(name: "shop")),
        ])
}

func question(
    _ name: String, _ type: UInt16 = DNSType.a, id: UInt16 = 4711, payload: UInt16? = nil
) throws -> DNSMessage {
    let name = try #require(DNSName(name))
    var message = DNSMessage(
        id: id, flags: DNSFlags.recursionDesired, questions: [DNSMessage.Question(name: name, type: type)])
    if let payload {
        message.additionals = [DNSMessage.Record(name: .root, dnsClass: payload, ttl: 0, data: .opt([]))]
    }
    return message
}

extension DNSMessage {
    var addresses: [String] {
        answers.compactMap { if case .a(let value) = $0.data { IPv4Address(value: value).description } else { nil } }
    }

    var hasSOA: Bool { authorities.contains { if case .soa = $0.data { true } else { false } } }
}

/// Asks a responder without sockets.
struct Asker {
    let responder = Responder()

    init(_ table: NameTable? = sampleTable()) {
        if let table { responder.publish(table) }
    }

    func outcome(_ bytes: [UInt8], from client: String? = nil, overTCP: Bool = false) -> Responder.Outcome {
        var scratch = Responder.Scratch()
        return responder.respond(
            to: ByteBuffer(bytes: bytes), from: client.map { address($0).value }, overTCP: overTCP,
            allocator: ByteBufferAllocator(), scratch: &scratch)
    }

    /// Nil when it is forwarded or dropped.
    func bytes(_ message: DNSMessage, from client: String? = nil, overTCP: Bool = false) -> [UInt8]? {
        guard case .answer(let buffer) = outcome(message.encoded, from: client, overTCP: overTCP) else { return nil }
        return Array(buffer.readableBytesView)
    }

    func ask(
        _ name: String, _ type: UInt16 = DNSType.a, from client: String? = nil, payload: UInt16? = nil,
        overTCP: Bool = false
    ) throws -> DNSMessage? {
        try bytes(question(name, type, payload: payload), from: client, overTCP: overTCP).map { try .decode($0) }
    }
}
