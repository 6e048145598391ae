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
        if var state = applied?.state {
            if applied?.ruleset == ruleset && context.hasChain(ruleset.marker) { return }
            state.attachments = attachments
            return try replace(ruleset, state)
        }
        guard !context.hasTable() else { return }
        try replace(ruleset, RuleState(attachments: attachments))
    }

    /// Makes the table equal to `state`: by the differences when it is known what is there, by filling the table of an
    /// earlier run anew, else (another version's table, or the kernel refused the differences because someone changed
    /// it) by another table.
    func apply(_ ruleset: Ruleset, _ state: RuleState) throws(NetworkError) {
        do throws(NetworkError) {
            if let applied, applied.ruleset == ruleset { return try change(applied, to: state) }
            if context.hasChain(ruleset.marker) { return try refill(ruleset, state) }
        } catch {
            // Somebody changed the table: what was known of it is wrong, and another one does not depend on it.
            applied = nil
        }
        try replace(ruleset, state)
    }

    private func change(_ applied: Applied, to state: RuleState) throws(NetworkError) {
        let (gone, come) = applied.state.difference(to: state)
        var (transactions, chains) = gone.changes(to: come, chains: applied.chains)
        if chains.count > Self.chainsMax {
            let needed = state.chains
            let spare = chains.subtracting(needed).sorted().map { "delete chain \(Ruleset.table) \($0)\n" }
            if !spare.isEmpty { transactions.append(spare.joined()) }
            chains.formIntersection(needed)
        }
        for transaction in transactions { try context.run(transaction) }
        self.applied = Applied(ruleset: applied.ruleset, state: state, chains: chains)
    }

    private func refill(_ ruleset: Ruleset, _ state: RuleState) throws(NetworkError) {
        applied = nil
        let there = Set(context.chains().compactMap(BalanceChain.init(name:)))
        let (transactions, chains) = state.elements.refill(chains: there)
        for transaction in transactions { try context.run(transaction) }
        applied = Applied(ruleset: ruleset, state: state, chains: chains)
    }

    /// Makes one more attachment known to a table of an earlier run, whose services are not known yet.
    func adopt(_ link: LinkName, _ address: IPv4Address) throws(NetworkError) {
        var addition = RuleElements()
        addition.add(link, address)
        try context.run(RuleElements().changes(to: addition, chains: []).transactions.joined())
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
