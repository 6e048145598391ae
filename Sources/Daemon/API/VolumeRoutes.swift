// SPDX-License-Identifier: Apache-2.0
internal import HTTPTypes
internal import Model

enum VolumeRoutes {
    static let all: [Route] = [
        Route(.get, "/v1/volumes", reads: .local) { request in
            let list = try await request.backend.volumes(namespace: try request.namespaceFilter())
            return try .json(list, index: list.index)
        },
        Route(.get, "/v1/volumes/{name}", reads: .linearizable) { request in
            let key = try request.key("volume")
            let index = await request.backend.appliedIndex()
            return try .json(try await request.backend.volume(key), index: index)
        },
        Route(.put, "/v1/volumes/{name}") { request in
            let key = try request.key("volume")
            let written = try await request.backend.putVolume(key)
            let reply = try APIReply.json(written.value, written.created ? .created : .ok, index: written.index)
            return reply.location(written.created ? "/v1/volumes/\(key.name)" : nil)
        },
        Route(.delete, "/v1/volumes/{name}") { request in
            APIReply(.noContent, index: try await request.backend.deleteVolume(try request.key("volume")))
        },
    ]
}
