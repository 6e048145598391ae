// SPDX-License-Identifier: Apache-2.0
public import Model

/// A step of the way from one authority to the next.
public enum AuthorityChange: Hashable, Codable, Sendable {
    /// Begins: every node is to believe this one, too.
    case add(AuthorityRow)
    /// From now on the one that was coming issues.
    case issue(String)
    /// Nobody believes it any more.
    case drop(String)
}

/// The order in which an authority takes the place of another, so that at any moment any two nodes believe what the other
/// one shows. A pure function of the state: whoever leads goes on where the leader before stopped, and the state machine takes no
/// step that this does not give.
public struct AuthorityExchange: Hashable, Sendable {
    public enum Step: Hashable, Sendable {
        /// Nothing is under way.
        case none
        /// Some nodes do not believe the new one yet.
        case spreading
        /// Some nodes show certificates of the old one.
        case renewing
    }

    public private(set) var step = Step.none
    /// Whom the step waits for, in the order of `nodes`; a node that is down, too: it would not know the others when it is
    /// back.
    public private(set) var waiting: [NodeID] = []
    /// What is to be done now; nil when there is nothing, or somebody is waited for.
    public private(set) var next: AuthorityChange?

    /// - Parameters: all nodes of the cluster, all its authorities, what is recorded of the nodes' certificates.
    public init(nodes: [NodeID], authorities: [AuthorityRow], certificates: [CertificateRow]) {
        let shown = Dictionary(
            certificates.map { ($0.node, $0.shown) }, uniquingKeysWith: { first, _ in first })
        if let coming = authorities.first(where: { $0.phase == .coming }) {
            step = .spreading
            waiting = nodes.filter { shown[$0]?.trusted.contains(coming.id) != true }
            if waiting.isEmpty { next = .issue(coming.id) }
        } else if let going = authorities.first(where: { $0.phase == .going }),
            let issuing = authorities.first(where: { $0.phase == .issuing })
        {
            step = .renewing
            waiting = nodes.filter { shown[$0]?.authority != issuing.id }
            if waiting.isEmpty { next = .drop(going.id) }
        }
    }
}
