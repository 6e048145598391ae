// SPDX-License-Identifier: Apache-2.0
internal import Model
internal import Synchronization

/// A NameTable made ready for lookups; never changed after it is built.
///
/// Names are kept in lower case, in wire form, without the zone: `namespace`, `app.namespace`,
/// `service.app.namespace`. A lookup allocates nothing.
struct Table: Sendable {
    /// `hive.internal`.
    static let zone = DNSName(uncheckedWire: [4] + Array("hive".utf8) + [8] + Array("internal".utf8))
    private static let tasks: [UInt8] = [5] + Array("tasks".utf8)

    /// The SOA's serial.
    let serial: UInt32
    private let nodes: [[UInt8]: Node]
    private let clients: [UInt32: Client]

    private enum Node: Sendable {
        case service(ServiceAddresses)
        /// Has names below it but no addresses of its own: NODATA, not NXDOMAIN (RFC 8020).
        case parent
    }

    /// What completes a bare name of one container.
    private struct Client: Sendable {
        /// `app.namespace`
        var app: [UInt8]
        /// `namespace`
        var namespace: [UInt8]
    }

    enum Answer {
        case service(ServiceAddresses, tasks: Bool)
        case zone
        case noData
        case noSuchName
        /// Not ours to answer.
        case foreign
    }

    /// A name that is no DNS label (which admission refuses) is left out.
    ///
    /// - Complexity: O(services + clients + endpoints).
    init(_ table: NameTable) {
        serial = UInt32(truncatingIfNeeded: table.index)
        var nodes: [[UInt8]: Node] = [:]
        for service in table.services {
            guard let label = Self.label(service.service), let app = Self.label(service.app.name),
                let namespace = Self.label(service.app.namespace)
            else { continue }
            let addresses = ServiceAddresses(service)
            nodes[label + app + namespace] = .service(addresses)
            if service.isAppDefault {
                nodes[app + namespace] = .service(addresses)
            } else if nodes[app + namespace] == nil {
                nodes[app + namespace] = .parent
            }
            nodes[namespace] = .parent
        }
        var clients: [UInt32: Client] = [:]
        for client in table.clients {
            guard let app = Self.label(client.app.name), let namespace = Self.label(client.app.namespace) else {
                continue
            }
            clients[client.address.value] = Client(app: app + namespace, namespace: namespace)
        }
        self.nodes = nodes
        self.clients = clients
    }

    /// - Parameters:
    ///   - name: wire form without the root, lower case.
    ///   - client: the source address, nil when it is not IPv4.
    ///   - key: scratch space, kept by the caller so that its storage is reused.
    func find(_ name: [UInt8], client: UInt32?, key: inout [UInt8]) -> Answer {
        if Self.isInZone(name) {
            let end = name.count - Self.zone.wire.count
            if end == 0 { return .zone }
            if let rest = Self.afterTasks(name, end: end), case .service(let found) = node(name[rest..<end], [], &key) {
                return .service(found, tasks: true)
            }
            switch node(name[..<end], [], &key) {
            case .service(let found): return .service(found, tasks: false)
            case .parent: return .noData
            case nil: return .noSuchName
            }
        }
        guard let client, let asker = clients[client], !name.isEmpty else { return .foreign }
        if let rest = Self.afterTasks(name, end: name.count),
            let found = bare(name[rest...], asker, &key)
        {
            return .service(found, tasks: true)
        }
        if let found = bare(name[...], asker, &key) { return .service(found, tasks: false) }
        return .foreign
    }

    /// `service` of the asker's app, then `app` of its namespace; `service.app` of its namespace.
    private func bare(_ name: ArraySlice<UInt8>, _ asker: Client, _ key: inout [UInt8]) -> ServiceAddresses? {
        guard let first = name.first else { return nil }
        let second = name.startIndex + 1 + Int(first)
        if second == name.endIndex {
            if case .service(let found) = node(name, asker.app, &key) { return found }
        } else if second + 1 + Int(name[second]) != name.endIndex {
            return nil
        }
        if case .service(let found) = node(name, asker.namespace, &key) { return found }
        return nil
    }

    private func node(_ name: ArraySlice<UInt8>, _ suffix: [UInt8], _ key: inout [UInt8]) -> Node? {
        key.removeAll(keepingCapacity: true)
        key.append(contentsOf: name)
        key.append(contentsOf: suffix)
        return nodes[key]
    }

    /// Where the name goes on after a leading `tasks.`, nil when it has none.
    private static func afterTasks(_ name: [UInt8], end: Int) -> Int? {
        end > tasks.count && name.starts(with: tasks) ? tasks.count : nil
    }

    /// The zone's labels end the name, at a label's border.
    static func isInZone(_ name: [UInt8]) -> Bool {
        let start = name.count - zone.wire.count
        guard start >= 0, name[start...].elementsEqual(zone.wire) else { return false }
        var at = 0
        while at < start { at += 1 + Int(name[at]) }
        return at == start
    }

    private static func label(_ text: String) -> [UInt8]? { DNSName.label(text.lowercased()) }
}

/// The addresses one name stands for.
final class ServiceAddresses: Sendable {
    /// Nil for `dnsrr`.
    let vip: UInt32?
    let endpoints: [UInt32]
    /// Each name turns on its own: one counter for all would favour some endpoints when names are asked in a pattern.
    private let turn = Atomic<UInt32>(0)

    init(_ service: NamedService) {
        vip = service.vip?.value
        endpoints = service.endpoints.map(\.value)
    }

    /// Index of the endpoint that comes first this time. Zero when there are none.
    func nextStart() -> Int {
        guard !endpoints.isEmpty else { return 0 }
        return Int(turn.wrappingAdd(1, ordering: .relaxed).oldValue % UInt32(endpoints.count))
    }
}
