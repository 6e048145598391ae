// SPDX-License-Identifier: Apache-2.0
internal import Model

/// The table `inet hivemind`: knows what it last put there and changes only what differs.
final class Firewall {
    /// Every command reads the list of chains: past this many, those nobody needs are deleted.
    private static let chainsMax = 256

    private struct Applied {
        var ruleset: Ruleset
        var state: RuleState
        var chains: Set<BalanceChain>
    }

    private let context: RuleContext
    private var applied: Applied?

    init() throws(NetworkError) { context = try RuleContext() }

    /// What the table holds; nil until it was written by this object.
    var state: RuleState? { applied?.state }

    /// Leaves a table of an earlier run as it is, so that connections go on; makes one when there is none.
    func ensureTable(_ ruleset: Ruleset, attachments: [LinkName: IPv4Address]) throws(NetworkError) {
        if applied?.ruleset == ruleset && context.hasChain(ruleset.marker) { return }
        applied = nil
        guard !context.hasTable() else { return }
        try replace(ruleset, RuleState(attachments: attachments))
    }

    /// Makes the table equal to `state`, in one transaction: of the differences when it is known what is there, else
    /// (first time, or the kernel refused the differences because someone changed the table) of the whole.
    func apply(_ ruleset: Ruleset, _ state: RuleState) throws(NetworkError) {
        guard let applied, applied.ruleset == ruleset else { return try replace(ruleset, state) }
        let (gone, come) = applied.state.difference(to: state)
        var (text, chains) = gone.changes(to: come, chains: applied.chains)
        if chains.count > Self.chainsMax {
            let needed = state.chains
            for chain in chains.subtracting(needed).sorted() { text += "delete chain \(Ruleset.table) \(chain)\n" }
            chains.formIntersection(needed)
        }
        do throws(NetworkError) {
            if !text.isEmpty { try context.run(text) }
            self.applied = Applied(ruleset: ruleset, state: state, chains: chains)
        } catch {
            try replace(ruleset, state)
        }
    }

    /// Makes one more attachment known to a table of an earlier run, whose services are not known yet.
    func adopt(_ link: LinkName, _ address: IPv4Address) throws(NetworkError) {
        var addition = RuleElements()
        addition.add(link, address)
        try context.run(RuleElements().changes(to: addition, chains: []).text)
    }

    func removeTable() throws(NetworkError) {
        applied = nil
        try context.run("add table \(Ruleset.table)\ndelete table \(Ruleset.table)\n")
    }

    private func replace(_ ruleset: Ruleset, _ state: RuleState) throws(NetworkError) {
        applied = nil
        let elements = state.elements
        try context.run(ruleset.replacement(elements))
        applied = Applied(ruleset: ruleset, state: state, chains: elements.chains)
    }
}
