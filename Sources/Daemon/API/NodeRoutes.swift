// SPDX-License-Identifier: Apache-2.0
internal import HTTPTypes
internal import Model

/// Nodes, this node and the cluster.
enum NodeRoutes {
    static let all: [Route] = [
        Route(.get, "/v1/nodes") { request in
            let list = try await request.backend.nodes()
            return try .json(list, index: list.index)
        },
        Route(.get, "/v1/nodes/{id}") { request in
            let index = await request.backend.appliedIndex()
            return try .json(try await request.backend.node(request.names["id"] ?? ""), index: index)
        },
        Route(.get, "/v1/status") { request in
            let status = try await request.backend.status()
            return try .json(status, index: status.appliedIndex)
        },
        Route(.get, "/v1/cluster") { request in
            let index = await request.backend.appliedIndex()
            return try .json(try await request.backend.cluster(), index: index)
        },
    ]
}
