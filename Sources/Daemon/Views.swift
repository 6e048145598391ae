// SPDX-License-Identifier: Apache-2.0
internal import Model
internal import Orchestrator
internal import Store

/// Rows as the API shows them.
enum Views {
    static func app(_ picture: AppPicture, placement: Reason?) -> AppView {
        let services = picture.services.filter { !$0.removed }
        let views = services.map { service($0, picture, placement: placement) }
        let replicas = views.map(\.replicas).reduce(ReplicaCounts(desired: 0, running: 0, ready: 0), +)
        let (status, reason) = status(picture, replicas, placement: placement)
        // The app is known by the service named like it, else by its first.
        let main = views.first { $0.name == picture.app.key.name } ?? views.first
        return AppView(
            name: picture.app.key.name, namespace: picture.app.key.namespace, version: picture.app.version,
            release: picture.app.release, image: main?.image ?? "", status: status, reason: reason, replicas: replicas,
            vip: main?.vip, ports: views.flatMap(\.ports), services: views,
            rollout: picture.rollout.map { rollout($0, picture) }, createdAt: picture.app.createdAt,
            updatedAt: picture.app.updatedAt)
    }

    private static func status(
        _ picture: AppPicture, _ replicas: ReplicaCounts, placement: Reason?
    ) -> (AppView.Status, Reason?) {
        if picture.app.deleting {
            // Why it takes so long, when a task cannot be removed.
            let stuck = picture.tasks.first {
                !$0.status.state.isTerminal && $0.status.reason?.message.hasPrefix("cannot be removed") == true
            }
            return (.deleting, stuck?.status.reason)
        }
        let wanted = picture.tasks.filter { $0.goal == .run }
        let trouble =
            wanted.first { $0.status.state == .failed }?.status.reason
            ?? wanted.first { !$0.status.ready && !$0.status.state.isTerminal && $0.status.reason != nil }?.status
            .reason
            ?? placement
        if let rollout = picture.rollout {
            switch rollout.state {
            case .running: return (.deploying, rollout.rollingBack ? rollout.reason : trouble)
            case .failed where replicas.ready < replicas.desired: return (.failed, rollout.reason)
            case .rolledBack where replicas.ready == replicas.desired: return (.running, rollout.reason)
            default: break
            }
        }
        if !wanted.isEmpty, wanted.allSatisfy({ $0.status.state == .stopped }) { return (.completed, nil) }
        let completed = wanted.filter { $0.status.state == .stopped }.count
        return replicas.ready + completed >= replicas.desired ? (.running, nil) : (.degraded, trouble)
    }

    static func service(_ row: ServiceRow, _ picture: AppPicture, placement: Reason?) -> ServiceView {
        let tasks = picture.tasks.filter { $0.service == row.name && $0.goal == .run }
        let ready = tasks.filter(\.status.ready)
        let reason =
            ready.count >= row.replicas
            ? nil : tasks.first { !$0.status.ready && $0.status.reason != nil }?.status.reason ?? placement
        return ServiceView(
            name: row.name, app: row.app.name, namespace: row.app.namespace, version: row.version,
            image: row.spec.image, imageDigest: row.spec.imageDigest ?? "",
            replicas: ReplicaCounts(desired: row.replicas, running: ready.count, ready: ready.count),
            vip: row.spec.endpointMode == .vip ? row.vip : nil, endpointMode: row.spec.endpointMode,
            endpoints: ready.map(\.address).sorted(),
            ports: row.spec.ports.map {
                PortView(
                    hostPort: $0.hostPort, containerPort: $0.containerPort, protocol: $0.protocol, mode: $0.mode,
                    service: row.name)
            }, reason: reason, spec: row.spec)
    }

    static func rollout(_ row: RolloutRow, _ picture: AppPicture) -> RolloutView {
        var updated = 0
        var total = 0
        for service in picture.services where !service.removed {
            total += service.replicas
            updated +=
                picture.tasks.filter {
                    $0.service == service.name && $0.goal == .run && $0.generation == service.generation
                        && ($0.status.ready || $0.status.state == .stopped)
                }.count
        }
        return RolloutView(
            id: row.id, state: row.state, release: row.release, updated: min(updated, total), total: total,
            reason: row.reason, failedTask: row.failedTask, startedAt: row.startedAt, endedAt: row.endedAt)
    }

    static func task(_ row: TaskRow, node: String) -> TaskView {
        let isDown = row.status.state == .running && !row.status.ready && row.goal == .run
        return TaskView(
            id: row.id, app: row.app.name, namespace: row.app.namespace, service: row.service, node: node,
            state: isDown ? "restarting" : row.status.state.rawValue, ready: row.status.ready, address: row.address,
            containerId: row.status.container, pid: row.status.pid, restarts: row.status.restarts,
            exitCode: row.status.exitCode, reason: row.status.reason, image: row.image, release: row.release,
            startedAt: row.status.startedAt, createdAt: row.createdAt)
    }
}
