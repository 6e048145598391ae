// SPDX-License-Identifier: Apache-2.0
internal import Model

/// What balancing and attachments add to the fixed table: elements of its maps and sets.
///
/// A service costs one element plus one per endpoint, and shares its chain with all services of as many endpoints, so
/// that a change of one endpoint is four elements at any size of the cluster.
struct RuleElements: Equatable, Sendable {
    enum Collection: String, CaseIterable, Sendable {
        /// VIP : chain
        case svc
        /// VIP . slot : endpoint
        case ep
        /// Protocol . port : chain
        case hostport
        /// Port . slot : endpoint . port
        case hp_tcp, hp_udp
        /// Protocol . port, published without an endpoint
        case hp_none
        /// Container . same container: it reached itself through its service
        case hairpin
        /// Link . the only address that may come out of it
        case antispoof
    }

    /// Slots the maps are declared for.
    static let endpointsMax = 1000

    /// Key : value; the value is empty in a set.
    private(set) var elements: [Collection: [String: String]] = [:]
    private(set) var chains: Set<BalanceChain> = []

    private mutating func add(_ collection: Collection, _ key: String, _ value: String = "") {
        elements[collection, default: [:]][key] = value
    }

    /// A published port another service here already holds stays with the first.
    mutating func add(_ service: BalancedService) {
        let endpoints = service.endpoints.prefix(Self.endpointsMax)
        if !endpoints.isEmpty {
            let chain = BalanceChain(.virtual, endpoints: endpoints.count, spreadBy: service.vip.value)
            chains.insert(chain)
            add(.svc, "\(service.vip)", "goto \(chain)")
            for (slot, endpoint) in endpoints.enumerated() { add(.ep, "\(service.vip) . \(slot)", "\(endpoint)") }
        }
        for port in service.ports {
            let key = "\(port.protocol.rawValue) . \(port.hostPort)"
            guard !endpoints.isEmpty else {
                add(.hp_none, key)
                continue
            }
            let chain = BalanceChain(.published, endpoints: endpoints.count, spreadBy: UInt32(port.hostPort))
            chains.insert(chain)
            add(.hostport, key, "goto \(chain)")
            let map: Collection = port.protocol == .tcp ? .hp_tcp : .hp_udp
            for (slot, endpoint) in endpoints.enumerated() {
                add(map, "\(port.hostPort) . \(slot)", "\(endpoint) . \(port.containerPort)")
            }
        }
    }

    mutating func add(_ link: LinkName, _ address: IPv4Address) {
        add(.antispoof, "\"\(link)\" . \(address)")
        add(.hairpin, "\(address) . \(address)")
    }

    /// One transaction from this state to `new`, and the chains there are afterwards.
    ///
    /// Deleting what is not there, or adding a key with another value, makes the kernel refuse the whole transaction:
    /// hence from the state that is known to be there.
    /// - Parameter chains: those that exist; none is deleted here.
    func changes(to new: RuleElements, chains known: Set<BalanceChain>) -> (text: String, chains: Set<BalanceChain>) {
        var text = ""
        for chain in new.chains.subtracting(known).sorted() {
            text += "add chain \(Ruleset.table) \(chain)\n"
            for rule in chain.rules { text += "add rule \(Ruleset.table) \(chain) \(rule)\n" }
        }
        var additions = ""
        for collection in Collection.allCases {
            let before = elements[collection] ?? [:]
            let after = new.elements[collection] ?? [:]
            let gone = before.filter { after[$0.key] != $0.value }.keys.sorted()
            let come = after.filter { before[$0.key] != $0.value }.sorted { $0.key < $1.key }
            if !gone.isEmpty {
                text += "delete element \(Ruleset.table) \(collection.rawValue) { \(gone.joined(separator: ", ")) }\n"
            }
            if !come.isEmpty {
                let list = come.map { $0.value.isEmpty ? $0.key : "\($0.key) : \($0.value)" }
                additions +=
                    "add element \(Ruleset.table) \(collection.rawValue) { \(list.joined(separator: ", ")) }\n"
            }
        }
        return (text + additions, known.union(new.chains))
    }
}

/// A chain shared by everything with the same number of endpoints: its rule counts connections and looks the endpoint
/// up in a map. Four of each, so that few services share a counter.
struct BalanceChain: Hashable, Comparable, Sendable, CustomStringConvertible {
    enum Kind: String, Sendable { case virtual = "rr", published = "hp" }

    static let groups: UInt32 = 4

    let kind: Kind
    let endpoints: Int
    let group: UInt32

    init(_ kind: Kind, endpoints: Int, spreadBy key: UInt32) {
        self.kind = kind
        self.endpoints = endpoints
        group = (key &* 2_654_435_769) >> 16 % Self.groups
    }

    var description: String { "\(kind.rawValue)\(endpoints)_\(group)" }

    var rules: [String] {
        switch kind {
        case .virtual: ["dnat ip to ip daddr . numgen inc mod \(endpoints) map @ep"]
        case .published:
            [PortProtocol.tcp, .udp].map { transport in
                let name = transport.rawValue
                return "meta l4proto \(name) dnat ip to \(name) dport . numgen inc mod \(endpoints) map @hp_\(name)"
            }
        }
    }

    static func < (left: Self, right: Self) -> Bool {
        (left.kind.rawValue, left.endpoints, left.group) < (right.kind.rawValue, right.endpoints, right.group)
    }
}
