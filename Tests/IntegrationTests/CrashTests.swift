// SPDX-License-Identifier: Apache-2.0
import TestSupport
import Testing

extension BlackBox {
    /// `kill -9` of the daemon at any moment of any change: what was acknowledged stays, what is wanted comes to be,
    /// and nothing else is left.
    ///
    /// `SEED=n` repeats the choices of a run, `ROUNDS=n` changes their number (50).
    @Suite struct Crash {
        @Test func `killed at random points the daemon loses nothing, leaks nothing and gets where it was going`()
            async throws
        {
            var random = TestRandom.fromEnvironment()
            let rounds = Host.environment("ROUNDS").flatMap { Int($0) } ?? 50
            let seed = random.seed
            print("crash test: SEED=\(seed) ROUNDS=\(rounds)")
            try await withNode("crash") { daemon, registry in
                let images = [try await registry.push(.hello, tag: "1.0"), try await registry.push(.hello, tag: "1.1")]
                for image in images { try await daemon.cli("image", "pull", image).checked() }
                let clean = try await daemon.footprint()
                var known = Set<String>()
                /// What the app may be now: more than one answer only while a change is unacknowledged.
                var possible: [Wanted?] = [nil]
                var written = 0

                for round in 1...rounds {
                    let change = Change.random(from: possible[0], images: images, using: &random)
                    let delay = Duration.milliseconds(Int.random(in: 0...1200, using: &random))
                    let place = "SEED=\(seed) round \(round): \(change) killed after \(delay)"

                    async let answer = change.send(to: daemon)
                    async let acknowledged = writeUntilKilled(daemon, from: written)
                    try await Task.sleep(for: delay)
                    try await daemon.kill9()
                    let accepted = await answer
                    let last = await acknowledged
                    try await daemon.start()

                    if let last {
                        let stored = try await daemon.api("GET", "/v1/configs/count").json()["data"].string ?? ""
                        let value = Int(stored) ?? -1
                        #expect(value == last || value == last + 1, "\(place): wrote \(last), read \(value)")
                        written = max(value, last)
                    }
                    possible = accepted ? [change.result] : [change.result, possible[0]]
                    do {
                        let now = try await settled(daemon, possible, known: &known)
                        possible = [now]
                        try await expectOnly(now, on: daemon, since: clean)
                    } catch {
                        throw TestFailure("\(place): \(error)")
                    }
                }

                if possible[0] != nil { try await daemon.delete("crash") }
                _ = try await daemon.api("DELETE", "/v1/configs/count")
                try await daemon.expectNothingLeft(since: clean, tasks: known.sorted())
            }
        }

        /// Writes 1, 2, 3… until the daemon is gone. Returns the last number that was acknowledged.
        private func writeUntilKilled(_ daemon: TestDaemon, from start: Int) async -> Int? {
            var last: Int?
            for number in (start + 1)... {
                let reply = try? await daemon.api("PUT", "/v1/configs/count", body: "{\"data\": \"\(number)\"}")
                guard let reply, reply.status / 100 == 2 else { break }
                last = number
            }
            return last
        }

        /// Waits until the app is one of `possible` and what runs is what it wants.
        private func settled(
            _ daemon: TestDaemon, _ possible: [Wanted?], known: inout Set<String>
        ) async throws -> Wanted? {
            var seen: Set<String> = []
            let result: Wanted?? = try await eventually(
                "desired is observed", within: .seconds(60), every: .milliseconds(100)
            ) {
                seen.formUnion(try await daemon.tasks("crash", all: true).map(\.id))
                let reply = try await daemon.api("GET", "/v1/apps/crash")
                if reply.status == 404 {
                    guard possible.contains(nil) else { throw TestFailure("the app is lost; it should be \(possible)") }
                    let left = try await daemon.tasks("crash")
                    guard left.isEmpty else { throw TestFailure("tasks of a deleted app: \(left)") }
                    return .some(nil)
                }
                let app = try reply.json()
                let wanted = Wanted(image: app["image"].string ?? "", replicas: app["replicas"]["desired"].int ?? -1)
                let tasks = try await daemon.tasks("crash")
                guard possible.contains(wanted), app["status"].string == "running" else {
                    throw TestFailure("it is \(app["status"]) \(wanted), it should be \(possible)")
                }
                let good = tasks.filter { $0.state == "running" && $0.image == wanted.image && Host.isAlive($0.pid) }
                guard good.count == wanted.replicas, tasks.count == wanted.replicas else {
                    throw TestFailure("\(good.count) of \(tasks.count) tasks run as \(wanted) asks")
                }
                return .some(wanted)
            }
            known.formUnion(seen)
            return result ?? nil
        }

        /// As many links, shims and containers as tasks, and no more.
        private func expectOnly(_ wanted: Wanted?, on daemon: TestDaemon, since clean: Footprint) async throws {
            let count = wanted?.replicas ?? 0
            try await eventually("nothing is leaked", within: .seconds(30), every: .milliseconds(200)) {
                let added = try await daemon.footprint().added(since: clean)
                for kind in ["link ", "container ", "task ", "snapshot "] {
                    let found = added.filter { $0.hasPrefix(kind) }
                    guard found.count == count else { throw TestFailure("\(count) tasks but \(found)") }
                }
                let shims = added.filter { $0.hasPrefix("process ") && $0.contains("shim") }
                guard shims.count == count else { throw TestFailure("\(count) tasks but \(shims)") }
                return true
            }
        }
    }
}

/// What the test asked for last.
private struct Wanted: Hashable, Sendable {
    var image: String
    var replicas: Int
}

private enum Change: Sendable, CustomStringConvertible {
    case put(Wanted)
    case scale(Wanted)
    case delete

    /// An app that is there is updated, scaled or deleted; one that is not is deployed.
    static func random(
        from now: Wanted?, images: [String], using random: inout TestRandom
    ) -> Change {
        let replicas = Int.random(in: 1...4, using: &random)
        guard let now else {
            return .put(Wanted(image: images[Int.random(in: 0..<images.count, using: &random)], replicas: replicas))
        }
        switch Int.random(in: 0..<10, using: &random) {
        case 0..<4: return .scale(Wanted(image: now.image, replicas: replicas))
        case 4..<8:
            let other = images.first { $0 != now.image } ?? now.image
            return .put(Wanted(image: other, replicas: now.replicas))
        default: return .delete
        }
    }

    var result: Wanted? {
        switch self {
        case .put(let wanted), .scale(let wanted): wanted
        case .delete: nil
        }
    }

    /// - Returns: whether the daemon acknowledged it.
    func send(to daemon: TestDaemon) async -> Bool {
        let reply: TestDaemon.Reply?
        switch self {
        case .put(let wanted):
            let service =
                "{\"name\": \"crash\", \"image\": \"\(wanted.image)\", \"replicas\": \(wanted.replicas), \"stop_timeout_milliseconds\": 2000}"
            reply = try? await daemon.api("PUT", "/v1/apps/crash", body: "{\"services\": [\(service)]}")
        case .scale(let wanted):
            reply = try? await daemon.api("POST", "/v1/apps/crash/scale", body: "{\"replicas\": \(wanted.replicas)}")
        case .delete:
            reply = try? await daemon.api("DELETE", "/v1/apps/crash")
        }
        return reply.map { $0.status / 100 == 2 } ?? false
    }

    var description: String {
        switch self {
        case .put(let wanted): "put \(wanted.image) x\(wanted.replicas)"
        case .scale(let wanted): "scale to \(wanted.replicas)"
        case .delete: "delete"
        }
    }
}
