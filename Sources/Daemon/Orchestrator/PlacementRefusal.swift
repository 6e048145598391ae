// SPDX-License-Identifier: Apache-2.0
internal import Model

/// Words for tasks that find no node.
enum PlacementRefusal {
    /// So many nodes are named one by one; more are told in groups.
    static let namedMax = 4

    static func cpu(want: Int, free: Int, of total: Int) -> Reason {
        Reason(
            .cpuShort, "lacks processor: \(cores(want)) cores wanted, \(cores(max(0, free))) of \(cores(total)) free",
            hint: "reserve less (--reserve-cpu), scale something down, or add a node")
    }

    static func memory(want: Int64, free: Int64, of total: Int64) -> Reason {
        Reason(
            .memoryShort,
            "lacks memory: \(mebibytes(want)) wanted, \(mebibytes(max(0, free))) of \(mebibytes(total)) free",
            hint: "reserve less (--reserve-memory), scale something down, or add a node")
    }

    /// One sentence for all nodes; its code is that of the only kind of refusal, else `no_node`.
    static func summary(_ refusals: [Scheduler.Refusal]) -> Reason {
        guard let first = refusals.first else { return Reason(.noNode, "there is no node") }
        if refusals.count == 1 {
            return Reason(first.reason.code, "node `\(first.name)`: \(first.reason.message)", hint: first.reason.hint)
        }
        let codes = Set(refusals.map(\.reason.code))
        let told =
            refusals.count <= namedMax
            ? refusals.map { "`\($0.name)`: \($0.reason.message)" }
            : Dictionary(grouping: refusals, by: \.reason.message).values.sorted {
                ($1.count, $0[0].name) < ($0.count, $1[0].name)
            }.map(group)
        let shown = told.prefix(8).joined(separator: "; ")
        let rest = told.count > 8 ? "; and \(told.count - 8) more kinds" : ""
        return Reason(
            codes.count == 1 ? first.reason.code : .noNode, "none of \(refusals.count) nodes fits: \(shown)\(rest)",
            hint: refusals.lazy.compactMap(\.reason.hint).first)
    }

    /// Nodes that say the same.
    private static func group(_ refusals: [Scheduler.Refusal]) -> String {
        let names = refusals.prefix(2).map { "`\($0.name)`" }.joined(separator: ", ")
        let more = refusals.count > 2 ? " and \(refusals.count - 2) more" : ""
        return "\(names)\(more): \(refusals[0].reason.message)"
    }

    /// 1500 → `1.5`
    private static func cores(_ millis: Int) -> String {
        let rest = "\(1000 + millis % 1000)".dropFirst()
        var text = "\(millis / 1000).\(rest)"
        while text.hasSuffix("0") { text.removeLast() }
        return text.hasSuffix(".") ? String(text.dropLast()) : text
    }

    private static func mebibytes(_ bytes: Int64) -> String { "\(bytes >> 20) MiB" }
}
