// SPDX-License-Identifier: Apache-2.0
public import Model

/// Which address to hand out next, from what is in use and what was given back.
///
/// An address given back rests before it is used again, because answers of DNS, open connections and rules of other
/// nodes may still name it; of those that have rested the one freed first is taken.
public enum AddressPool {
    /// Longer than any TTL we answer with and than connection tracking keeps a closed connection.
    public static let restMilliseconds: Int64 = 60_000

    /// The next address, or nil when all are in use or resting.
    ///
    /// Pure; lowest never-used address first.
    /// - Parameters:
    ///   - usable: offsets within `subnet` that may be handed out.
    ///   - used: addresses in use.
    ///   - released: addresses given back and when.
    /// - Complexity: O(usable) in the worst case.
    public static func next(
        in subnet: IPv4Subnet,
        usable: Range<Int>,
        used: Set<IPv4Address>,
        released: [IPv4Address: Timestamp],
        now: Timestamp
    ) -> IPv4Address? {
        for offset in usable {
            let address = subnet[offset]
            if !used.contains(address), released[address] == nil { return address }
        }
        return
            released
            .filter { now - $0.value >= restMilliseconds && !used.contains($0.key) && subnet.contains($0.key) }
            .min { ($0.value, $0.key) < ($1.value, $1.key) }?
            .key
    }

    /// `.2` to `.254` of a node's /24; network, gateway and broadcast stay free.
    public static func containerOffsets(of subnet: IPv4Subnet) -> Range<Int> { 2..<Int(subnet.count) - 1 }
    /// Everything but network and broadcast of the range.
    public static func virtualOffsets(of subnet: IPv4Subnet) -> Range<Int> { 1..<Int(subnet.count) - 1 }
}
