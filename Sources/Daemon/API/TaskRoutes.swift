// SPDX-License-Identifier: Apache-2.0
internal import HTTPTypes
internal import Model

/// Tasks and the services they are replicas of.
enum TaskRoutes {
    static let all: [Route] = [
        Route(.get, "/v1/tasks", reads: .local) { request in
            let list = try await request.backend.tasks(
                namespace: try request.namespaceFilter(), app: try request.app(), all: try request.flag("all"))
            return try .json(list, index: list.index)
        },
        Route(.get, "/v1/tasks/{id}", reads: .linearizable) { request in
            let index = await request.backend.appliedIndex()
            let id = request.names["id"] ?? ""
            let task = try await request.backend.task(id)
            guard request.isVisible(task.namespace) else { throw Problem(.notFound, "no task \(Validation.shown(id))") }
            return try .json(task, index: index)
        },
        Route(.get, "/v1/services", reads: .local) { request in
            let list = try await request.backend.services(
                namespace: try request.namespaceFilter(), app: try request.app())
            return try .json(list, index: list.index)
        },
        Route(.get, "/v1/services/{name}", reads: .linearizable) { request in
            let key = try request.key("service"), app = try request.app()
            let index = await request.backend.appliedIndex()
            let service = try await request.backend.service(key, app: app)
            return try .json(service, index: index, version: service.version)
        },
    ]
}
