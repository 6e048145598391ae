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
            let node = try await request.backend.patchNode(
                request.names["id"] ?? "", try request.json(NodePatch.self))
            return try .json(node, index: await request.backend.appliedIndex())
        },
        Route(.get, "/v1/why/{kind}/{id}", reads: .local) { request in
            let index = await request.backend.appliedIndex()
            let why = try await request.backend.why(
                kind: request.names["kind"] ?? "", name: request.names["id"] ?? "",
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
}
