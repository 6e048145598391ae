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

        var isSet: Bool { [.hp_none, .hairpin, .antispoof].contains(self) }
        /// Looked up by the rules of a chain some verdict led to.
        var isBehindVerdict: Bool { [.ep, .hp_tcp, .hp_udp].contains(self) }
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
        for port in service.ports { add(port, endpoints) }
    }

    mutating func add(_ pin: PinnedPort) { add(pin.port, [pin.endpoint]) }

    private mutating func add(_ port: PublishedPort, _ endpoints: ArraySlice<IPv4Address>) {
        let key = "\(port.protocol.rawValue) . \(port.hostPort)"
        guard !endpoints.isEmpty else { return add(.hp_none, key) }
        let chain = BalanceChain(.published, endpoints: endpoints.count, spreadBy: UInt32(port.hostPort))
        chains.insert(chain)
        add(.hostport, key, "goto \(chain)")
        let map: Collection = port.protocol == .tcp ? .hp_tcp : .hp_udp
        for (slot, endpoint) in endpoints.enumerated() {
            add(map, "\(port.hostPort) . \(slot)", "\(endpoint) . \(port.containerPort)")
        }
    }

    mutating func add(_ link: LinkName, _ address: IPv4Address) {
        add(.antispoof, "\"\(link)\" . \(address)")
        add(.hairpin, "\(address) . \(address)")
    }

    /// The transactions from this state to `new`, to be made in this order, and the chains there are afterwards.
    ///
    /// The kernel reads the generation anew for every chain and lookup, so a packet may meet a transaction halfway: a
    /// verdict of the new one, then a chain or a slot of the old one, and find nothing. Hence chains come before what
    /// leads to them, and slots go after it.
    ///
    /// Deleting what is not there, or adding a key with another value, makes the kernel refuse the whole transaction:
    /// hence from the state that is known to be there.
    /// - Parameter chains: those that exist; none is deleted here.
    func changes(
        to new: RuleElements,
        chains known: Set<BalanceChain>
    ) -> (transactions: [String], chains: Set<BalanceChain>) {
        var deletions = ""
        var additions = ""
        var leftovers = ""
        for collection in Collection.allCases {
            let before = elements[collection] ?? [:]
            let after = new.elements[collection] ?? [:]
            let gone = before.filter { after[$0.key] != $0.value }.keys.sorted()
            let late = collection.isBehindVerdict ? gone.filter { after[$0] == nil } : []
            deletions += Self.command("delete", collection, late.isEmpty ? gone : gone.filter { after[$0] != nil })
            leftovers += Self.command("delete", collection, late)
            additions += Self.command(
                "add", collection,
                after.filter { before[$0.key] != $0.value }.sorted { $0.key < $1.key }
                    .map { $0.value.isEmpty ? $0.key : "\($0.key) : \($0.value)" })
        }
        let transactions = [Self.additions(of: new.chains.subtracting(known)), deletions + additions, leftovers]
        return (transactions.filter { !$0.isEmpty }, known.union(new.chains))
    }

    /// The transactions to this state from whatever elements the collections hold.
    func refill(chains known: Set<BalanceChain>) -> (transactions: [String], chains: Set<BalanceChain>) {
        var flush = ""
        for collection in Collection.allCases {
            flush += "flush \(collection.isSet ? "set" : "map") \(Ruleset.table) \(collection.rawValue)\n"
        }
        let elements = RuleElements().changes(to: self, chains: chains).transactions.joined()
        return (
            [Self.additions(of: chains.subtracting(known)), flush + elements].filter { !$0.isEmpty },
            known.union(chains)
        )
    }

    private static func additions(of chains: Set<BalanceChain>) -> String {
        var text = ""
        for chain in chains.sorted() {
            text += "add chain \(Ruleset.table) \(chain)\n"
            for rule in chain.rules { text += "add rule \(Ruleset.table) \(chain) \(rule)\n" }
        }
        return text
    }

    private static func command(_ verb: String, _ collection: Collection, _ list: [String]) -> String {
        guard !list.isEmpty else { return "" }
        return "\(verb) element \(Ruleset.table) \(collection.rawValue) { \(list.joined(separator: ", ")) }\n"
    }
}

/// A chain shared by everything with the same number of endpoints: its rule counts connections and looks the endpoint
/// up in a map. Four of each, so that few services share a counter.
struct BalanceChain: Hashable, Comparable, Sendable, CustomStringConvertible {
    enum Kind: String, CaseIterable, Sendable { case virtual = "rr", published = "hp" }

    static let groups: UInt32 = 4

    let kind: Kind
    let endpoints: Int
    let group: UInt32

    init(_ kind: Kind, endpoints: Int, spreadBy key: UInt32) {
        self.kind = kind
        self.endpoints = endpoints
        group = (key &* 2_654_435_769) >> 16 % Self.groups
    }

    /// - Parameter name: as `description` gives it; nil for another chain's.
    init?(name: Substring) {
        let numbers = name.dropFirst(2).split(separator: "_", omittingEmptySubsequences: false)
        guard let kind = Kind(rawValue: String(name.prefix(2))), numbers.count == 2, let endpoints = Int(numbers[0]),
            let group = UInt32(numbers[1])
        else { return nil }
        (self.kind, self.endpoints, self.group) = (kind, endpoints, group)
        guard description == name else { return nil }
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
