// SPDX-License-Identifier: Apache-2.0
public import Model
internal import Store

/// Which tasks would be better off on another node, now that nodes came back or came new.
///
/// Pure. A task moves only where that makes a difference of two or more smaller: what is as even as it can be stays, and
/// running it again finds nothing.
public enum Rebalance {
    public struct Move: Hashable, Sendable {
        public var task: TaskID
        public var app: ObjectKey
        public var service: String
        public var from: NodeID
        /// The best node as things are now; which it becomes is decided when its turn comes.
        public var to: NodeID
        /// What is uneven, with numbers.
        public var why: String
    }

    /// So many moves are planned at once; the rest is found by asking again.
    public static let movesMax = 500
    /// So many tasks of the cluster move at a time.
    public static let movingMax = 5

    /// - Parameter apps: those to look at; all others count and stay.
    public static func plan(_ apps: [AppPicture], _ scheduler: Scheduler) -> [Move] {
        var scheduler = scheduler
        var moves: [Move] = []
        for picture in apps.sorted(by: { $0.app.key < $1.app.key }) where !picture.app.deleting {
            // What is on its way is not judged.
            if let state = picture.rollout?.state, state == .running || state == .failed { continue }
            for service in picture.services where isMovable(service) {
                let tasks = picture.tasks.filter {
                    $0.service == service.name && $0.goal == .run && $0.generation == service.generation
                        && $0.status.ready && !$0.isMoving
                }
                moves += scheduler.moves(of: service, tasks, max: movesMax - moves.count)
            }
        }
        return moves
    }

    /// What writes data on its node stays with it; a global service is where it has to be.
    private static func isMovable(_ service: ServiceRow) -> Bool {
        !service.removed && !service.spec.isGlobal && !service.spec.hasWritableVolume
    }
}

extension Scheduler {
    /// Moves tasks in the counters of this value, one by one, as long as one makes things more even.
    mutating func moves(of service: ServiceRow, _ tasks: [TaskRow], max: Int) -> [Rebalance.Move] {
        let want = Want(service)
        let levels = groups(of: want.spread)
        var crowd = Crowd(levels, running[want.key] ?? [:])
        // The youngest of a node goes first.
        var byPlace: [Int: [TaskRow]] = [:]
        for task in tasks.sorted(by: { ($0.sequence, $0.id) < ($1.sequence, $1.id) }) {
            if let place = places[task.node] { byPlace[place, default: []].append(task) }
        }
        var moves: [Rebalance.Move] = []
        while moves.count < max {
            let fit = nodes.indices.filter { obstacle(of: $0, want) == nil }
            let sources = byPlace.filter { !$0.value.isEmpty }.keys.sorted { one, other in
                let difference = crowd.difference(one, other)
                return difference != 0
                    ? difference > 0
                    : (mine(want, other), loads[other].tasks, one) < (mine(want, one), loads[one].tasks, other)
            }
            var found: (from: Int, to: Int, why: String)?
            for source in sources {
                for target in fit where target != source {
                    guard let why = gain(source, target, want, crowd) else { continue }
                    if let best = found, !isBetter(target, best.to, want, crowd) { continue }
                    found = (source, target, why)
                }
                if found != nil { break }
            }
            guard let (from, to, why) = found, let task = byPlace[from]?.popLast() else { break }
            move(want, from, to)
            crowd.add(from, -1)
            crowd.add(to)
            moves.append(
                Rebalance.Move(
                    task: task.id, app: service.app, service: service.name, from: nodes[from].id, to: nodes[to].id,
                    why: why))
        }
        return moves
    }

    private func mine(_ want: Want, _ place: Int) -> Int { running[want.key]?[place] ?? 0 }

    private func isBetter(_ one: Int, _ other: Int, _ want: Want, _ crowd: Crowd) -> Bool {
        let difference = crowd.difference(one, other)
        return difference != 0
            ? difference < 0
            : (mine(want, one), loads[one].tasks, one) < (mine(want, other), loads[other].tasks, other)
    }

    /// What is more even after one task went from one node to another; nil when nothing is, or something less.
    private func gain(_ from: Int, _ to: Int, _ want: Want, _ crowd: Crowd) -> String? {
        for level in crowd.levels.indices {
            let groups = crowd.levels[level].groups
            guard groups[from] != groups[to] else { continue }
            let (here, there) = (crowd.counts[level][groups[from]], crowd.counts[level][groups[to]])
            if here - there < 1 { return nil }
            if here - there >= 2 {
                let label = want.spread[level]
                let names = [from, to].map { "\(label)=\(nodes[$0].labels[label] ?? "-")" }
                return "\(names[0]) has \(here) of it, \(names[1]) has \(there)"
            }
            // One changes places with the other: as even as before.
            break
        }
        let (here, there) = (mine(want, from), mine(want, to))
        if here - there < 1 { return nil }
        let (all, less) = (loads[from].tasks, loads[to].tasks)
        if here - there >= 2 { return "`\(nodes[from].name)` has \(here) of it, `\(nodes[to].name)` has \(there)" }
        if all - less >= 2 { return "`\(nodes[from].name)` has \(all) tasks, `\(nodes[to].name)` has \(less)" }
        return nil
    }
}
