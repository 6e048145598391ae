// SPDX-License-Identifier: Apache-2.0

/// Defects that can be switched on, to see that the simulation finds them.
///
/// They exist only in builds made with `HIVEMIND_PLANTED_BUGS` set (`make planted-bugs`); everywhere else `isActive` is
/// false at compile time and nothing of them is left.
public enum Planted {
    public enum Bug: String, CaseIterable, Sendable {
        case ackBeforeSync, voteNotPersisted, oldTermCommitted, staleAppendTruncates, lateReceiptCounts
        case readWithoutOwnEntry, olderRoundCounts, changeWithoutOwnEntry, rollbackLost, learnerCounted
        case removedReturns, proposesWhileTransferring, appliesBeforeDurable, acknowledgesWhatItTakesBack
        case readNumbersRepeat, removalRefusesLeader, removedNeverStands, readRoundHangs
        case tornTailCutAnyway, sealNotRenewed
        case snapshotWrongIndex, snapshotWithoutAnswers, appliedIndexApart, logCutAboveState, dictionaryOrder
        case clockInApply, watchEarly, watchLate, oldStateReplayed, answersForgotten, leaderDecides
    }

    #if PLANTED_BUGS
        /// Set once, before anything runs.
        nonisolated(unsafe) public static var active: Bug?

        @inline(__always)
        public static func isActive(_ bug: Bug) -> Bool { active == bug }
    #else
        @inline(__always)
        public static func isActive(_ bug: Bug) -> Bool { false }
    #endif
}
