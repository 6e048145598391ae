// SPDX-License-Identifier: Apache-2.0
internal import Model

/// The fixed part of the node's one table: hooks and empty collections, made of its addresses only.
///
/// Balancing adds elements and shared chains to it, never rules to the hooks (see `RuleElements`).
struct Ruleset: Hashable, Sendable {
    static let table = "inet hivemind"

    let node: NodeNetwork
    /// The node's own address among the containers' (first of its subnet), on `lo`.
    var gateway: IPv4Address { node.subnet[1] }

    /// Lines that let the overlay through; empty on a node that is alone.
    ///
    /// Encapsulated packets are nobody's connections: untracked they are never translated, which would break their
    /// checksums, and fill no table. They pass every packet's hooks, so their rules come first and compare addresses
    /// before anything that costs more.
    private var overlay: (encapsulated: String, inner: String, postrouting: String, chains: String) {
        guard let end = node.overlay else { return ("", "", "", "") }
        let packet = "udp dport \(end.port)"
        return (
            // Sources of what comes out of the device are checked by the routes back (rp_filter).
            """
            ip daddr \(end.address) \(packet) iifname != "\(LinkName.prefix)*" notrack accept
                iifname "\(OverlayDevice.name)" ip daddr != 127.0.0.0/8 accept
            """,
            // A container must not make such packets of its own.
            "iifname \"\(LinkName.prefix)*\" ip daddr != \(node.ranges.containers) \(packet) drop",
            // What another node gets it can answer: it knows this node's containers and no other sender.
            "oifname \"\(OverlayDevice.name)\" ip saddr != \(node.subnet) snat ip to \(gateway) fully-random",
            """
            chain raw_output {
                type filter hook output priority -300; policy accept;
                ip saddr \(end.address) \(packet) notrack accept
            }
            """
        )
    }

    /// What still carries a VIP after translation has no endpoint, or no service: the whole range is refused, so no
    /// list of empty services is kept.
    ///
    /// Before Docker's own hooks (at `dstnat`, `srcnat`), should it share the namespace: the first translation of a
    /// connection wins, and only our addresses and ports are matched.
    private var body: String {
        """
        map svc { type ipv4_addr : verdict; }
        map ep { typeof ip daddr . numgen inc mod 1024 : ip daddr; }
        map hostport { type inet_proto . inet_service : verdict; }
        map hp_tcp { typeof tcp dport . numgen inc mod 1024 : ip daddr . tcp dport; }
        map hp_udp { typeof udp dport . numgen inc mod 1024 : ip daddr . udp dport; }
        set hp_none { type inet_proto . inet_service; }
        set hairpin { type ipv4_addr . ipv4_addr; }
        set antispoof { type ifname . ipv4_addr; }
        chain balance {
            ip daddr vmap @svc
            ip daddr != \(AddressRanges.nameServer) fib daddr type local meta l4proto . th dport vmap @hostport
        }
        chain nat_prerouting {
            type nat hook prerouting priority -105; policy accept;
            jump balance
        }
        chain nat_output {
            type nat hook output priority -105; policy accept;
            jump balance
        }
        chain nat_postrouting {
            type nat hook postrouting priority 95; policy accept;
            \(overlay.postrouting)
            ct status dnat ip saddr 127.0.0.0/8 snat ip to \(gateway) fully-random
            ct status dnat ip saddr . ip daddr @hairpin snat ip to \(gateway) fully-random
            ip saddr \(node.ranges.containers) ip daddr != \(node.ranges.containers) \
        oifname != "\(LinkName.prefix)*" masquerade fully-random
        }
        chain raw_prerouting {
            type filter hook prerouting priority -300; policy accept;
            \(overlay.encapsulated)
            iifname != "lo" ip daddr 127.0.0.0/8 drop
            iifname "\(LinkName.prefix)*" meta nfproto ipv6 drop
            \(overlay.inner)
            iifname "\(LinkName.prefix)*" iifname . ip saddr != @antispoof drop
        }
        \(overlay.chains)
        chain refuse {
            meta l4proto tcp reject with tcp reset
            reject with icmpx port-unreachable
        }
        chain refuse_forward {
            type filter hook forward priority -10; policy accept;
            ip daddr \(node.ranges.virtual) goto refuse
        }
        chain refuse_output {
            type filter hook output priority -10; policy accept;
            ip daddr \(node.ranges.virtual) goto refuse
        }
        chain refuse_input {
            type filter hook input priority -10; policy accept;
            ip daddr != \(AddressRanges.nameServer) meta l4proto . th dport @hp_none goto refuse
        }

        """
    }

    /// Name of an empty chain that tells, after a restart, whether the table in the kernel is this one, shared chains
    /// included.
    var marker: String {
        var hash: UInt64 = 0xcbf2_9ce4_8422_2325  // FNV-1a
        let shared = BalanceChain.Kind.allCases.flatMap { BalanceChain($0, endpoints: 1, spreadBy: 0).rules }
        for byte in (body + shared.joined()).utf8 { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01b3 }
        return "schema_" + String(hash, radix: 16)
    }

    /// One transaction that puts the table with `elements` in the place of whatever table there is. A packet on its
    /// way through the hooks in that very moment may meet neither table, which refuses its connection.
    func replacement(_ elements: RuleElements) -> String {
        """
        add table \(Self.table)
        delete table \(Self.table)
        table \(Self.table) {
        chain \(marker) {
        }
        \(body)}
        \(RuleElements().changes(to: elements, chains: []).transactions.joined())
        """
    }
}
