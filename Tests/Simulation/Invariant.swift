// SPDX-License-Identifier: Apache-2.0

/// What must hold, by name.
enum Invariant: String, CaseIterable {
    // After every step.
    case oneLeader = "one leader per term"
    case logMatching = "equal position, equal log"
    case leaderCompleteness = "a leader has every committed entry"
    case committedStays = "committed entries never change"
    case commitOnQuorum = "committed means durable on a quorum"
    case votesKept = "votes and terms are kept"
    case entriesKept = "acknowledged entries are kept"
    case appliedOnce = "applied in order and once"
    case statesEqual = "states are equal at equal index"
    case statesAgree = "the state does what its model does"
    case membershipsOverlap = "memberships overlap"
    case removedStayOut = "removed members stay out"
    case exactlyOnce = "a request takes effect once"
    case writesKept = "acknowledged writes are kept"
    case readsCurrent = "reads show acknowledged writes"
    case staleReadsTrue = "stale reads show the state at their index"
    case watchComplete = "watches are complete"
    case rightStatesStay = "a state gives way only to a majority's"
    case diskOpens = "a log opens after a crash"
    // At the end.
    case linearizable = "the history is linearizable"
    case electsLeader = "a healed cluster elects a leader"
    case finishes = "a healed cluster finishes every operation"
    case converges = "members of a healed cluster become equal"
    case wrongStatesGo = "a wrong state is found and replaced"
    case handsOn = "leadership is handed on under load"
    // Of a fleet.
    case addressesOnce = "no address is used twice"
    case volumesOnce = "no exclusive volume is used twice"
    case placedWell = "tasks are placed only where they may run"
    case reasonsGiven = "what is not placed has a reason"
    case pictureKept = "the picture that is kept is the one made anew"
    case fleetSettles = "a healed fleet becomes what is wanted"
    /// A precondition of the product's code failed, or the process ended in another bad way.
    case noTrap = "nothing traps"
}

/// An invariant was found broken.
struct Violation: Error, CustomStringConvertible {
    var invariant: Invariant
    var detail: String

    init(_ invariant: Invariant, _ detail: String) {
        self.invariant = invariant
        self.detail = detail
    }

    var description: String { "\(invariant.rawValue): \(detail)" }
}
