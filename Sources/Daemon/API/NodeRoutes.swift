// SPDX-License-Identifier: Apache-2.0
internal import HTTPTypes
internal import Model

/// Nodes, and this one in particular.
enum NodeRoutes {
    static let all: [Route] = [
        Route(.get, "/v1/nodes", reads: .local) { request in
            let list = try await request.backend.nodes()
            return try .json(list, index: list.index)
        },
        Route(.get, "/v1/nodes/{id}", reads: .linearizable) { request in
            let index = await request.backend.appliedIndex()
            return try .json(try await request.backend.node(request.names["id"] ?? ""), index: index)
        },
        Route(.patch, "/v1/nodes/{id}", body: .json) { request in
            let patch = try request.json(NodePatch.self)
            // Who votes is not for everybody who may move tasks.
            if patch.role != nil { try request.permit(.write, .membership) }
            let node = try await request.backend.patchNode(request.names["id"] ?? "", patch)
            return try .json(node, index: await request.backend.appliedIndex())
        },
        Route(.get, "/v1/rebalance", reads: .linearizable) { request in try await rebalance(request, begins: false) },
        Route(.post, "/v1/rebalance") { request in try await rebalance(request, begins: true) },
        Route(.get, "/v1/why/{kind}/{id}", reads: .local) { request in
            let index = await request.backend.appliedIndex()
            let kind = request.names["kind"] ?? ""
            if kind == "task" {
                let task = try await request.backend.task(request.names["id"] ?? "")
                guard request.isVisible(task.namespace) else { throw Problem(.notFound, "no task \(task.id)") }
            } else if kind == "node" {
                try permitAllNamespaces(request)
            }
            let why = try await request.backend.why(
                kind: kind, name: request.names["id"] ?? "",
                namespace: try request.namespaceFilter() ?? ObjectKey.defaultNamespace)
            return try .json(why, index: index)
        },
        Route(.delete, "/v1/nodes/{id}") { request in
            APIReply(.noContent, index: try await request.backend.removeNode(request.names["id"] ?? ""))
        },
        Route(.get, "/v1/status", reads: .local) { request in
            let status = try await request.backend.status()
            return try .json(status, index: status.appliedIndex)
        },
    ]

    /// For what speaks of the tasks of all namespaces.
    private static func permitAllNamespaces(_ request: APIRequest) throws(Problem) {
        guard let own = request.caller.namespace else { return }
        throw Problem(
            .forbidden, "this speaks of the tasks of all namespaces, and \(request.caller) is bound to `\(own)`",
            hint: "ask with a token without --namespace")
    }

    private static func rebalance(_ request: APIRequest, begins: Bool) async throws -> APIReply {
        if begins { try request.permit(.write, .node) }
        try permitAllNamespaces(request)
        let view = try await request.backend.rebalance(
            namespace: try request.namespaceFilter(), app: try request.app(), begins: begins)
        return try .json(view, begins ? .accepted : .ok, index: await request.backend.appliedIndex())
    }
}
