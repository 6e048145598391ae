// SPDX-License-Identifier: Apache-2.0
internal import FoundationEssentials
internal import Model
internal import Orchestrator
internal import Raft
internal import Store

/// What happened, and what it happened to.
extension NodeBackend {
    func events(after position: EventPosition, limit: Int) async throws -> EventPage {
        let found = try await state.read {
            try $0.events(after: position.index, sub: position.sub, limit: limit)
        }
        switch found {
        case .compacted(let oldest, let applied):
            var problem = Problem(
                .compacted, "events after \(position) are no longer kept: the oldest is \(oldest), now is \(applied)",
                hint: "list the objects and follow from \(applied)")
            problem.oldestIndex = oldest
            problem.currentIndex = applied
            throw problem
        case .events(let events, let through):
            let views = events.map { event in
                EventView(
                    index: event.index, sub: event.sub, kind: event.kind.rawValue,
                    namespace: event.namespace.isEmpty ? nil : event.namespace, name: event.name,
                    change: EventView.Change(rawValue: event.change.rawValue) ?? .updated, version: event.version)
            }
            let applied = core.proposals.appliedIndex
            return EventPage(
                events: views, end: through < position.index ? position : EventPosition(index: through),
                hasMore: through < applied)
        }
    }

    func object(of event: EventView) async throws -> EventView.Object? {
        guard event.change != .deleted, let kind = StateEvent.Kind(rawValue: event.kind) else { return nil }
        let stored = StateEvent(
            index: event.index, sub: event.sub, kind: kind, namespace: event.namespace ?? "", name: event.name,
            change: .updated, version: event.version)
        guard try await state.read({ try $0.version(of: stored) }) == event.version else { return nil }
        let key = ObjectKey(namespace: event.namespace ?? "default", name: event.name)
        let object: EventView.Object
        do {
            switch kind {
            case .app: object = .app(try await app(key))
            case .service:
                let parts = event.name.split(separator: "/", maxSplits: 1).map(String.init)
                guard parts.count == 2 else { return nil }
                object = .service(
                    try await service(ObjectKey(namespace: key.namespace, name: parts[1]), app: parts[0]))
            case .task: object = .task(try await task(event.name))
            case .node: object = .node(try await node(event.name))
            case .volume:
                guard let view = try await volumeView(key, measured: false, asking: false) else { return nil }
                object = .volume(view)
            case .config: object = .config(try await config(key))
            case .cluster: object = .cluster(try await cluster())
            }
        } catch let problem as Problem where problem.code == .notFound {
            return nil
        }
        // What was read may be newer than the version asked about.
        return try await state.read({ try $0.version(of: stored) }) == event.version ? object : nil
    }

    func waitForIndex(beyond index: UInt64, limit: Duration) async throws {
        let end = Clock.monotonic() + max(0, Int64(limit / .milliseconds(1)))
        // In slices: whoever waits may have gone.
        while Clock.monotonic() < end {
            try Task.checkCancellation()
            if await core.proposals.applied(through: index + 1, deadline: min(end, Clock.monotonic() + 200)) { return }
        }
    }

    func isReady() async -> Bool { core.status.isCaughtUp && core.status.isAdopted }

    func appliedIndex() async -> UInt64 { core.status.appliedIndex }
}
