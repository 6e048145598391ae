// SPDX-License-Identifier: Apache-2.0
internal import HTTPTypes
internal import Model

enum AppRoutes {
    static let all: [Route] = [
        Route(.get, "/v1/apps", reads: .local) { request in
            let list = try await request.backend.apps(namespace: try request.namespaceFilter())
            return try .json(list, index: list.index)
        },
        Route(.get, "/v1/apps/{name}", reads: .linearizable) { request in
            let key = try request.key("app")
            // Asked first: what is read afterwards is at least this new.
            let index = await request.backend.appliedIndex()
            let app = try await request.backend.app(key)
            return try .json(app, index: index, version: app.version)
        },
        Route(.put, "/v1/apps/{name}", body: .json, takesCondition: true) { request in
            let condition = try request.condition()
            let body = try request.json(PutAppRequest.self)
            let spec = try Validation.app(AppSpec(key: try request.key("app"), services: body.services))
            try Authorization.judge(request.caller, spec)
            let written = try await request.backend.putApp(
                spec.key, PutAppRequest(services: spec.services), condition)
            return try accepted(written, written.operation == nil ? .ok : .accepted)
        },
        Route(.delete, "/v1/apps/{name}", takesCondition: true) { request in
            let key = try request.key("app"), condition = try request.condition()
            return APIReply(.accepted, index: try await request.backend.deleteApp(key, condition))
        },
        Route(.post, "/v1/apps/{name}/scale", body: .json) { request in
            let key = try request.key("app")
            let scale = try request.json(ScaleRequest.self)
            try Validation.replicas(scale.replicas)
            if let service = scale.service { try Validation.name(service, kind: "service") }
            return try accepted(try await request.backend.scaleApp(key, scale))
        },
        Route(.post, "/v1/apps/{name}/restart") { request in
            try accepted(try await request.backend.restartApp(try request.key("app")))
        },
        Route(.get, "/v1/apps/{name}/logs", reads: .local) { request in
            let key = try request.key("app")
            let filter = try request.logFilter()
            var reply = APIReply(.ok, index: await request.backend.appliedIndex())
            reply.body = .stream(
                LogStream(lines: try await request.backend.logs(key, filter), follow: filter.follow))
            return reply
        },
        Route(.get, "/v1/operations/{id}", reads: .linearizable) { request in
            let index = await request.backend.appliedIndex()
            let id = request.names["id"] ?? ""
            let operation = try await request.backend.operation(id)
            guard request.isVisible(operation.namespace) else {
                throw Problem(.notFound, "no operation \(Validation.shown(id))")
            }
            return try .json(operation, index: index)
        },
    ]

    private static func accepted(
        _ written: Written<AppView>, _ status: HTTPResponse.Status = .accepted
    ) throws -> APIReply {
        try APIReply.json(written.value, status, index: written.index, version: written.value.version)
            .location(written.operation.map { "/v1/operations/\($0)" })
    }
}
