// SPDX-License-Identifier: Apache-2.0
public import Model

/// What was seen of the way to one node, and what that means. Pure.
public struct OverlayDiagnosis: Hashable, Sendable {
    /// Probes that were answered.
    public struct Answers: OptionSet, Hashable, Sendable {
        public let rawValue: UInt8
        public init(rawValue: UInt8) { self.rawValue = rawValue }

        /// A small packet to the node's own address.
        public static let underlay = Self(rawValue: 1 << 0)
        /// One of the link's whole MTU, not to be cut into pieces.
        public static let underlayWhole = Self(rawValue: 1 << 1)
        /// A small packet through the overlay.
        public static let overlay = Self(rawValue: 1 << 2)
        /// One of the overlay's whole MTU.
        public static let overlayWhole = Self(rawValue: 1 << 3)
        /// A datagram through the overlay whose checksum the other node found right.
        public static let checksum = Self(rawValue: 1 << 4)
    }

    public typealias Finding = PathFinding

    public var node: NodeID
    public var answers: Answers
    public var finding: Finding
    /// Nil when all is well.
    public var reason: Reason?

    /// What the probes were sent with.
    struct Conditions: Hashable, Sendable {
        var overlay: OverlayEnd
        var link: String
        /// Of that link, in bytes; of the overlay.
        var linkMTU: Int
        var mtu: Int
    }

    /// - Parameters:
    ///   - isWired: every entry that leads to the node is in the kernel.
    ///   - others: the other remote nodes.
    init(_ remote: RemoteNode, _ answers: Answers, isWired: Bool, others: [RemoteNode], _ conditions: Conditions) {
        node = remote.id
        self.answers = answers
        let name = "`\(remote.name)`"
        let twin = others.first {
            $0.id != remote.id && ($0.address == remote.address || $0.subnet.overlaps(remote.subnet))
        }
        let (at, port, link) = (remote.address, conditions.overlay.port, conditions.link)
        func because(_ finding: Finding, _ message: String, _ hint: String) -> (Finding, Reason?) {
            (finding, Reason(.networkFailed, message, hint: hint))
        }
        (finding, reason) =
            if remote.address == conditions.overlay.address {
                because(
                    .duplicateAddress, "node \(name) has this node's own address \(at)",
                    "give one of them another address with --advertise")
            } else if let twin {
                because(
                    .duplicateAddress, "nodes \(name) and `\(twin.name)` share \(at) or \(remote.subnet)",
                    "remove the one that is gone, or give one of them another address with --advertise")
            } else if !isWired {
                because(
                    .missingRoute, "the way to \(remote.subnet) of node \(name) is not complete on this node",
                    "it is put back within a minute; see what removed it: ip monitor route neigh")
            } else if answers.isSuperset(of: [.overlayWhole, .checksum]) {
                (.healthy, nil)
            } else if answers.isDisjoint(with: [.overlay, .overlayWhole, .checksum]) {
                answers.isDisjoint(with: [.underlay, .underlayWhole])
                    ? because(
                        .unreachable, "node \(name) does not answer at \(at)",
                        "see whether it runs, and whether a firewall drops ICMP and UDP port \(port) between the two")
                    : because(
                        .blockedUDP, "node \(name) answers at \(at), but not through the overlay",
                        "allow UDP port \(port) in both directions, and see that the daemon of \(name) knows this node")
            } else if !answers.contains(.overlayWhole) {
                because(
                    .wrongMTU, "packets of \(conditions.mtu) bytes do not reach node \(name), small ones do",
                    answers.contains(.underlayWhole)
                        ? "node \(name) has a smaller MTU than this one: give both links the same"
                        : "what is between the two passes less than \(conditions.linkMTU) bytes: "
                            + "lower the MTU of `\(link)` on every node, or raise it there")
            } else {
                because(
                    .brokenOffload,
                    "datagrams through the overlay reach node \(name) with wrong checksums, or not at all",
                    "try `ethtool -K \(link) tx-udp_tnl-segmentation off tx-udp_tnl-csum-segmentation off` on both nodes"
                )
            }
    }
}
