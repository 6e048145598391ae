// SPDX-License-Identifier: Apache-2.0
internal import HTTPTypes
internal import Model

/// SQL, version and what supervisors and scrapers ask for.
enum SystemRoutes {
    static func all(version: VersionView) -> [Route] {
        [
            Route(.post, "/v1/query", body: .json, reads: .local) { request in
                let index = await request.backend.appliedIndex()
                let answer = try await request.backend.query(
                    try request.json(QueryRequest.self).sql, withSecrets: request.caller.role == .admin)
                return try .json(answer, index: index)
            },
            Route(.get, "/version", isPublic: true) { _ in try .json(version) },
            Route(.get, "/health", isPublic: true) { _ in try .json(["status": "ok"]) },
            Route(.get, "/ready", isPublic: true) { request in
                guard await request.backend.isReady() else {
                    throw Problem(
                        .runtimeUnavailable, "this node is not ready yet", hint: "GET /v1/status says what is missing")
                }
                return try .json(["status": "ready"], index: await request.backend.appliedIndex())
            },
            Route(.get, "/metrics") { request in
                .text(await request.backend.metrics() + request.metrics.text, type: "text/plain; version=0.0.4")
            },
        ]
    }
}
