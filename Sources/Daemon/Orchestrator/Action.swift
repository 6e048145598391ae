// SPDX-License-Identifier: Apache-2.0
public import Model

/// One step the reconciler asks its node's agent for. Actions of one task never overlap; each may be repeated.
public enum Action: Hashable, Sendable {
    /// Image, volumes, network, container: in that order, each step idempotent. `discard` names containers of earlier
    /// attempts, removed once the new one runs.
    case start(StartRequest)
    /// Gives up a start under way; its end is reported as a failed start.
    case cancelStart(TaskID)
    case stop(TaskID, ContainerID, signal: String?, timeoutMilliseconds: Int)
    /// Removes containers of earlier attempts.
    case discard([ContainerID])
    /// Removes everything a task has on this node but its logs.
    case clean(TaskID, [ContainerID])
    case forgetLogs(TaskID)
    case deleteVolume(ObjectKey)
    /// Lists what is on the node. `token` comes back with the answer.
    case takeInventory(token: UInt64)
}

public struct StartRequest: Hashable, Sendable {
    public var task: TaskID
    public var attempt: Int
    public var app: ObjectKey
    public var service: ServiceSpec
    public var address: IPv4Address
    public var discard: [ContainerID]

    public init(
        task: TaskID, attempt: Int, app: ObjectKey, service: ServiceSpec, address: IPv4Address, discard: [ContainerID]
    ) {
        self.task = task
        self.attempt = attempt
        self.app = app
        self.service = service
        self.address = address
        self.discard = discard
    }

    public var container: ContainerID { ContainerID(task: task, attempt: attempt) }
}

/// What the agent saw.
public enum Observation: Hashable, Sendable {
    case inventory(Inventory)
    /// The start got as far as making the container.
    case starting(TaskID, attempt: Int)
    case started(TaskID, attempt: Int, StartedContainer)
    case startFailed(TaskID, attempt: Int, Reason)
    case exited(ContainerID, ExitStatus)
    case stopped(TaskID, ContainerID)
    case stopFailed(TaskID, ContainerID, Reason)
    case cleaned(TaskID)
    case cleanFailed(TaskID, Reason)
    case volumeDeleted(ObjectKey)
    case volumeDeleteFailed(ObjectKey, Reason)
    /// Events were missed: look at everything again.
    case resync
}

public struct Inventory: Hashable, Sendable {
    public var token: UInt64
    public var containers: [ObservedContainer]
    public var attached: [TaskID]
    public var logged: [TaskID]

    public init(token: UInt64, containers: [ObservedContainer], attached: [TaskID], logged: [TaskID]) {
        self.token = token
        self.containers = containers
        self.attached = attached
        self.logged = logged
    }
}
