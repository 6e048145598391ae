// SPDX-License-Identifier: Apache-2.0

/// Answers names from the table it was handed last.
public protocol NameService: Sendable {
    /// Replaces the whole table; the next query sees it.
    func publish(_ table: NameTable) async
}

/// All names of the cluster as one value, made by a pure function of the applied state.
public struct NameTable: Hashable, Codable, Sendable {
    public var index: UInt64
    /// Sorted by namespace, app, service.
    public var services: [NamedService]
    /// Who asks: container address to the app it belongs to, sorted by address.
    public var clients: [NameClient]

    public init(index: UInt64, services: [NamedService], clients: [NameClient]) {
        self.index = index
        self.services = services
        self.clients = clients
    }

    public static let empty = NameTable(index: 0, services: [], clients: [])
}

public struct NamedService: Hashable, Codable, Sendable {
    public var app: ObjectKey
    public var service: String
    /// The app's own name means this service (same name, or the only one).
    public var isAppDefault: Bool
    /// Nil for `dnsrr`.
    public var vip: IPv4Address?
    /// Ready, sorted.
    public var endpoints: [IPv4Address]

    public init(app: ObjectKey, service: String, isAppDefault: Bool, vip: IPv4Address?, endpoints: [IPv4Address]) {
        self.app = app
        self.service = service
        self.isAppDefault = isAppDefault
        self.vip = vip
        self.endpoints = endpoints
    }
}

public struct NameClient: Hashable, Codable, Sendable {
    public var address: IPv4Address
    public var app: ObjectKey

    public init(address: IPv4Address, app: ObjectKey) {
        self.address = address
        self.app = app
    }
}
