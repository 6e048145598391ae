// SPDX-License-Identifier: Apache-2.0
import Model
import Orchestrator
import Raft
import Testing

@Suite struct FollowChoiceTests {
    private func next(
        _ choice: inout FollowChoice, _ members: [MemberID], down: Set<MemberID> = [], at now: Int64
    ) -> MemberID? { choice.next(members, down: down, at: now) }

    @Test func `observers spread evenly over the members, each always in the same order`() {
        let members: [MemberID] = [1, 2, 3, 4, 5, 6, 7]
        var counts: [MemberID: Int] = [:]
        for number in 0..<700 {
            var choice = FollowChoice(node: NodeID("node\(number)"))
            var again = FollowChoice(node: NodeID("node\(number)"))
            let chosen = choice.next(members, at: 0)
            let same = again.next(members.reversed(), at: 5)
            #expect(chosen == same)
            if let chosen { counts[chosen, default: 0] += 1 }
        }
        #expect(counts.count == 7 && counts.values.allSatisfy { (60...140).contains($0) }, "\(counts)")
    }

    @Test func `who fails is left alone, longer each time, and asked again once it answers`() {
        var choice = FollowChoice(node: NodeID("a"))
        let first = choice.next([1, 2], at: 0) ?? 0
        choice.failed(first, at: 0)
        let second = choice.next([1, 2], at: 1) ?? 0
        #expect(Set([first, second]) == [1, 2])
        choice.failed(second, at: 1)
        #expect(next(&choice, [1, 2], at: 2) == nil, "each was tried just now")
        #expect(next(&choice, [1, 2], at: FollowChoice.pauseFirst) == first)
        choice.failed(first, at: 1_000)
        #expect(next(&choice, [first], at: 1_000 + FollowChoice.pauseFirst) == nil)
        #expect(next(&choice, [first], at: 1_000 + 2 * FollowChoice.pauseFirst) == first)
        for _ in 0..<80 { choice.failed(first, at: 2_000) }
        #expect(next(&choice, [first], at: 2_000 + FollowChoice.pauseLast) == first)
        choice.failed(first, at: 20_000)
        choice.answered(first)
        #expect(next(&choice, [1, 2], at: 20_000) == first)
    }

    @Test func `one that is called down is asked last`() {
        var choice = FollowChoice(node: NodeID("a"))
        let first = choice.next([1, 2, 3], at: 0) ?? 0
        let second = choice.next([1, 2, 3], down: [first], at: 0)
        #expect(second != first && second != nil)
        #expect(next(&choice, [first], down: [first], at: 0) == first)
        #expect(next(&choice, [], at: 0) == nil)
    }
}
