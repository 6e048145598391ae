// SPDX-License-Identifier: Apache-2.0
internal import HTTPTypes
internal import Model

enum ImageRoutes {
    static let all: [Route] = [
        Route(.get, "/v1/images") { request in
            let list = try await request.backend.images()
            return try .json(list, index: list.index)
        },
        Route(.post, "/v1/images/pull", body: .json, isImageWork: true) { request in
            let reference = try request.json(PullImageRequest.self).image
            try Validation.image(reference)
            return try .json(
                try await request.backend.pullImage(reference), index: await request.backend.appliedIndex())
        },
        Route(.post, "/v1/images/import", body: .archive, isImageWork: true) { request in
            guard let archive = request.archive else { throw Problem(.internal, "the archive was not stored") }
            if let name = request.query["name"] { try Validation.image(name) }
            let list = try await request.backend.importImages(archive: archive, name: request.query["name"])
            return try .json(list, index: list.index)
        },
        Route(.delete, "/v1/images") { request in
            guard let reference = request.query["name"] else {
                throw Problem(.badRequest, "which image is not said", hint: "add ?name=REFERENCE")
            }
            try Validation.image(reference)
            try await request.backend.removeImage(reference)
            return APIReply(.noContent, index: await request.backend.appliedIndex())
        },
    ]
}
