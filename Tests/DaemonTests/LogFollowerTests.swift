// SPDX-License-Identifier: Apache-2.0
import Model
import Raft
import Store
import TestSupport
import Testing

@testable import Daemon

/// A node outside of the log, beside real members.
@Suite struct LogFollowerTests {
    /// Tests beside it may hold all threads of tasks for ten seconds and more.
    private static let patience = Duration.seconds(60)

    @Test func `an observer has what is agreed, writes through the leader, reads what is current and begins again`()
        async throws
    {
        try await withCoreGroup { group in
            try group.start(1, founders: [1])
            let leader = try await group.leader()
            for number in 0..<300 { try await leader.put("c\(number % 40)", "\(number)") }
            var observer = try group.start(9)
            try await eventually("it has followed", within: Self.patience) { try await observer.get("c19") == "299" }
            #expect(observer.core.isObserver && observer.core.followed == 1)
            #expect(observer.core.status.consensus.leader == 1)
            try await observer.put("own", "a")
            #expect(try await observer.get("own") == "a", "applied here when it is answered")
            #expect(try await leader.get("own") == "a")
            for number in 0..<20 {
                try await leader.put("fresh", "\(number)")
                try await observer.core.readBarrier()
                #expect(try await observer.get("fresh") == "\(number)")
            }
            await group.stop(9)
            try await leader.put("own", "b")
            observer = try group.start(9)
            try await eventually("it goes on", within: Self.patience) { try await observer.get("own") == "b" }
            #expect(observer.core.isObserver && !observer.hasLog)
            let ours = try await observer.state.read { try $0.configs(namespace: nil, prefix: "") }
            let theirs = try await leader.state.read { try $0.configs(namespace: nil, prefix: "") }
            #expect(ours == theirs && ours.count == 42)
            #expect(
                try await observer.state.read { try $0.meta().configuration.membership } == Membership(voters: [1]),
                "also what no entry says")
        }
    }

    @Test func `nothing of a life that ended stays in memory`() async throws {
        try await withCoreGroup { group in
            try group.start(1, founders: [1])
            weak let leader = try await group.leader().core
            weak let observer = try group.start(9).core
            try await eventually("it follows", within: Self.patience) { observer?.followed == 1 }
            await group.stop(9)
            await group.stop(1)
            try await eventually("both are gone", within: Self.patience) { leader == nil && observer == nil }
        }
    }

    @Test func `it turns to another member when its own is gone, and to the new leader`() async throws {
        try await withCoreGroup { group in
            for member in [1, 2, 3] as [MemberID] { try group.start(member, founders: [1, 2, 3]) }
            var leader = try await group.leader()
            let observer = try group.start(9)
            try await leader.put("a", "1")
            try await eventually("it follows", within: Self.patience) { try await observer.get("a") == "1" }
            for round in 0..<3 {
                let followed = try #require(observer.core.followed)
                group.cut(followed)
                try await observer.put("a", "\(round)")
                leader = try await group.leader()
                try await eventually("it follows another", within: Self.patience) {
                    try await observer.get("a") == "\(round)" && observer.core.followed != followed
                }
                group.cut(followed, false)
            }
            // With nobody to follow it knows no leader, and says so in time.
            for member in [1, 2, 3] as [MemberID] { group.cut(member) }
            try await eventually("it is alone", within: Self.patience) {
                observer.core.status.consensus.leader == nil
            }
            await #expect(throws: Problem.self) { try await observer.core.readBarrier(deadline: .milliseconds(200)) }
            #expect(try await observer.get("a") == "2", "what it knows it goes on to know")
            for member in [1, 2, 3] as [MemberID] { group.cut(member, false) }
            try await observer.put("a", "back")
        }
    }

    @Test func `far behind, it begins from a snapshot of any member, one that does not lead too`() async throws {
        try await withCoreGroup { group in
            try group.start(1, founders: [1])
            let leader = try await group.leader()
            try await leader.put("before", "1")
            // A member whose log begins late: what was before is in its state alone.
            let late = try group.start(2)
            try await eventually("it follows", within: Self.patience) { try await late.get("before") == "1" }
            try await leader.core.changeMembership(.addLearner(2))
            try await eventually("it is a member", within: Self.patience) { !late.core.isObserver }
            try await leader.put("after", "2")
            try await eventually("it has both", within: Self.patience) { try await late.get("after") == "2" }
            group.cut(1)
            let observer = try group.start(9)
            try await eventually("it has both", within: Self.patience) {
                let both = (try await observer.get("before"), try await observer.get("after"))
                return both == ("1", "2")
            }
            #expect(observer.core.followed == 2 && observer.core.snapshots.store.newest != nil)
            group.cut(1, false)
            try await observer.put("own", "3")
            #expect(try await leader.get("own") == "3")
        }
    }

    @Test func `made a member, it begins a log where it stands, gets a vote and keeps both`() async throws {
        try await withCoreGroup { group in
            try group.start(1, founders: [1])
            let leader = try await group.leader()
            for number in 0..<50 { try await leader.put("c", "\(number)") }
            var node = try group.start(9)
            try await eventually("it follows", within: Self.patience) { try await node.get("c") == "49" }
            try await leader.core.changeMembership(.addLearner(9))
            try await eventually("it is a member", within: Self.patience) {
                !node.core.isObserver && node.hasLog
            }
            #expect(node.core.status.consensus.baseIndex > 50, "what it had applied is in no log of it")
            try await eventually("it has a vote", within: Self.patience) {
                do { try await leader.core.changeMembership(.promote(9)) } catch let problem as Problem
                    where problem.code == .conflict
                {
                    return leader.core.status.consensus.configuration?.membership.isVoter(9) == true
                }
                return true
            }
            try await leader.put("c", "two decide")
            await group.stop(9)
            node = try group.start(9, hasLog: true)
            try await node.put("c", "again")
            #expect(!node.core.isObserver)
            // Only one of two is left: nothing is agreed.
            group.cut(1)
            await #expect(throws: Problem.self) {
                _ = try await node.core.propose(.compareState, deadline: .milliseconds(300))
            }
        }
    }

    @Test func `one whose making was cut off by a crash is made a member when it starts again`() async throws {
        try await withCoreGroup { group in
            try group.start(1, founders: [1])
            let leader = try await group.leader()
            var node = try group.start(9)
            try await leader.put("a", "1")
            try await eventually("it follows", within: Self.patience) { try await node.get("a") == "1" }
            try await leader.core.changeMembership(.addLearner(9))
            try await eventually("it is a member", within: Self.patience) { !node.core.isObserver }
            await group.stop(9)
            // The mark that it has a log was not written: what there is of one counts for nothing.
            try await leader.put("a", "2")
            node = try group.start(9, hasLog: false)
            try await eventually("it has caught up", within: Self.patience) {
                try await node.get("a") == "2" && !node.core.isObserver
            }
            #expect(node.hasLog)
            try await eventually("the leader knows", within: Self.patience) {
                let status = leader.core.status.consensus
                return status.progress.first { $0.id == 9 }?.match == status.lastIndex
            }
        }
    }

    @Test func `a state of another history is given up for a member's`() async throws {
        try await withCoreGroup { group in
            // As after a majority was lost and given up for a survivor that was behind this observer.
            try group.start(1, founders: [1])
            let lost = try await group.leader()
            for number in 0..<30 { try await lost.put("a", "lost \(number)") }
            let observer = try group.start(9)
            try await eventually("it follows", within: Self.patience) { try await observer.get("a") == "lost 29" }
            await group.stop(9)
            await group.stop(1)
            try group.directory.subdirectory("1").remove()
            try group.start(1, founders: [1])
            _ = try await group.leader()
            // Its term is a later one.
            await group.stop(1)
            try group.start(1, founders: [1], hasLog: true)
            let next = try await group.leader()
            try await next.put("a", "kept")
            let again = try group.start(9)
            try await eventually("it has the other history", within: Self.patience) {
                try await again.get("a") == "kept"
            }
            try await again.put("a", "on")
            #expect(try await next.get("a") == "on")
        }
    }

    @Test func `a state that was changed behind its back is given up when states are compared`() async throws {
        try await withCoreGroup { group in
            try group.start(1, founders: [1])
            let leader = try await group.leader()
            for number in 0..<10 { try await leader.put("c\(number)", "right") }
            var observer = try group.start(9)
            try await eventually("it follows", within: Self.patience) { try await observer.get("c9") == "right" }
            func compare() async throws {
                _ = try await leader.core.propose(.compareState, deadline: .seconds(20))
            }
            try await compare()
            try await observer.put("own", "1")
            #expect(observer.core.status.condition == nil)
            await group.stop(9)
            let path = "\(group.directory.path)/9/state.sqlite"
            try await Shell.run([
                "python3", "-c",
                "import sqlite3; s = sqlite3.connect('\(path)'); "
                    + "s.execute(\"UPDATE configs SET data = 'wrong' WHERE name = 'c3'\"); s.commit()",
            ]).checked()
            observer = try group.start(9)
            try await leader.put("c4", "newer")
            try await eventually("it goes on", within: Self.patience) { try await observer.get("c4") == "newer" }
            #expect(try await observer.get("c3") == "wrong", "nobody knows yet")
            try await compare()
            try await eventually("it has what the others have", within: Self.patience) {
                let both = (try await observer.get("c3"), try await observer.get("c4"))
                return both == ("right", "newer") && observer.core.status.condition == nil
            }
            try await observer.put("own", "2")
            #expect(try await leader.get("own") == "2" && observer.core.isObserver)
        }
    }
}
