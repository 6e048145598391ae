// SPDX-License-Identifier: Apache-2.0
internal import HTTPTypes
internal import Model

/// Tokens of people and programs, and what whoever asks may do.
enum TokenRoutes {
    static let all: [Route] = [
        Route(.get, "/v1/tokens", reads: .linearizable) { request in
            let list = try await request.backend.apiTokens()
            return try .json(list, index: list.index)
        },
        Route(.post, "/v1/tokens", body: .json) { request in
            let wanted = request.body.readableBytes > 0 ? try request.json(APITokenRequest.self) : APITokenRequest()
            let token = try await request.backend.createAPIToken(wanted)
            var reply = try APIReply.json(token, .created, index: await request.backend.appliedIndex())
            reply.headers[.cacheControl] = "no-store"
            return reply
        },
        Route(.delete, "/v1/tokens/{id}") { request in
            APIReply(.noContent, index: try await request.backend.revokeAPIToken(request.names["id"] ?? ""))
        },
        Route(.get, "/v1/whoami") { request in
            let caller = request.caller
            return try .json(
                IdentityView(
                    kind: caller.kind.rawValue, name: caller.name, token: caller.token, role: caller.role.rawValue,
                    namespace: caller.namespace, expiresAt: caller.expiresAt,
                    node: try await request.backend.status().node))
        },
        Route(.get, "/v1/can-i") { request in
            let verb = try Authorization.verb(request.query["verb"] ?? "")
            let kind = try Authorization.kind(request.query["kind"] ?? "")
            do {
                try Authorization.judge(request.caller, verb, kind, namespace: try request.namespaceFilter())
            } catch let problem as Problem where problem.code == .forbidden {
                return try .json(PermissionView(allowed: false, reason: problem.detail, hint: problem.hint))
            }
            return try .json(PermissionView(allowed: true))
        },
    ]
}
