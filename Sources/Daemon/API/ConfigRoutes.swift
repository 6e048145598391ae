// SPDX-License-Identifier: Apache-2.0
internal import HTTPTypes
internal import Model

/// Small versioned documents with compare-and-set. Slashes of a name may be written as they are or as `%2F`.
enum ConfigRoutes {
    static let all: [Route] = [
        Route(.get, "/v1/configs", reads: .local) { request in
            let list = try await request.backend.configs(
                namespace: try request.namespaceFilter(), prefix: request.query["prefix"] ?? "")
            return try .json(list, index: list.index)
        },
        Route(.get, "/v1/configs/{name...}", endsByItself: true, reads: .linearizable) { request in
            let key = try request.configKey()
            let index = await request.backend.appliedIndex()
            let config = try await request.backend.config(key)
            return .json(config, index: index, version: config.version)
        },
        Route(.put, "/v1/configs/{name...}", body: .json, endsByItself: true, takesCondition: true) { request in
            let key = try request.configKey(), condition = try request.condition()
            let body = try request.json(PutConfigRequest.self)
            try Validation.configData(body.data)
            let written = try await request.backend.putConfig(key, body.data, condition)
            return .json(written.value, index: written.index, version: written.value.version)
        },
        Route(.delete, "/v1/configs/{name...}", endsByItself: true, takesCondition: true) { request in
            let key = try request.configKey(), condition = try request.condition()
            return APIReply(.noContent, index: try await request.backend.deleteConfig(key, condition))
        },
    ]
}
