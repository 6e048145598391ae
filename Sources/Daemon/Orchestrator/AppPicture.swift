// SPDX-License-Identifier: Apache-2.0
public import Model
public import Store

/// All that decisions about one app are made from, read at one moment.
public struct AppPicture: Hashable, Sendable {
    public var app: AppRow
    public var services: [ServiceRow]
    /// Oldest first.
    public var tasks: [TaskRow]
    public var rollout: RolloutRow?

    public init(app: AppRow, services: [ServiceRow], tasks: [TaskRow], rollout: RolloutRow?) {
        self.app = app
        self.services = services
        self.tasks = tasks
        self.rollout = rollout
    }

    public init?(_ state: StateView, _ key: ObjectKey) throws {
        guard let app = try state.app(key) else { return nil }
        self.init(
            app: app, services: try state.services(namespace: key.namespace, app: key.name),
            tasks: try state.tasks(app: key), rollout: try state.rollout(app: key))
    }
}

extension TaskRow {
    /// Ended by itself as it should: exit code 0 under a policy that does not start it again.
    var isCompleted: Bool { goal == .run && status.state == .stopped }
}
