// SPDX-License-Identifier: Apache-2.0
internal import HTTPTypes
internal import Model

/// How nodes come to a cluster and leave it.
enum MembershipRoutes {
    static let all: [Route] =
        [
            Route(.post, "/v1/cluster/init", body: .json) { request in
                let wanted =
                    request.body.readableBytes > 0 ? try request.json(ClusterInitRequest.self) : ClusterInitRequest()
                return try .json(try await request.backend.initializeCluster(wanted), index: nil)
            },
            Route(.post, "/v1/cluster/join", body: .json) { request in
                let wanted = try request.json(ClusterJoinRequest.self)
                return try .json(try await request.backend.joinCluster(wanted), index: nil)
            },
            Route(.post, "/v1/cluster/join/check", body: .json, endsByItself: true) { request in
                let wanted = try request.json(ClusterJoinRequest.self)
                return try .json(try await request.backend.checkJoin(wanted), index: nil)
            },
            Route(.post, "/v1/cluster/leave") { request in
                try await request.backend.leaveCluster()
                return APIReply(.noContent)
            },
            Route(.get, "/v1/cluster/tokens", reads: .linearizable) { request in
                let list = try await request.backend.joinTokens()
                return try .json(list, index: list.index)
            },
            Route(.post, "/v1/cluster/tokens", body: .json) { request in
                let wanted =
                    request.body.readableBytes > 0 ? try request.json(JoinTokenRequest.self) : JoinTokenRequest()
                let token = try await request.backend.createJoinToken(wanted)
                return try .json(token, .created, index: await request.backend.appliedIndex())
            },
            Route(.delete, "/v1/cluster/tokens/{id}") { request in
                APIReply(.noContent, index: try await request.backend.revokeJoinToken(request.names["id"] ?? ""))
            },
            Route(.post, "/v1/cluster/tokens/rotate") { request in
                let token = try await request.backend.rotateJoinToken(nil)
                return try .json(token, .created, index: await request.backend.appliedIndex())
            },
            Route(.post, "/v1/cluster/tokens/{id}/rotate") { request in
                let token = try await request.backend.rotateJoinToken(request.names["id"] ?? "")
                return try .json(token, .created, index: await request.backend.appliedIndex())
            },
        ] + open

    /// For machines that are no nodes yet.
    static let open: [Route] = closed.map(\.toAnybody)

    private static let closed: [Route] = [
        Route(.get, "/v1/authority") { request in try .json(try await request.backend.authorities(), index: nil) },
        // Believed for the certificate it comes with. What does not decide any more does not answer.
        Route(.get, "/v1/succession/{cluster}/{node}", reads: .linearizable) { request in
            let found = try await request.backend.succession(
                of: request.names["cluster"] ?? "", node: NodeID(request.names["node"] ?? ""))
            return try .json(found, index: nil)
        },
        Route(.post, "/v1/join", body: .json) { request in
            let application = try request.json(JoinApplication.self)
            return try .json(try await request.backend.admit(application), index: nil)
        },
        Route(.post, "/v1/renew", body: .json) { request in
            let proof = try request.json(IdentityProof.self)
            return try .json(try await request.backend.renew(proof), index: nil)
        },
        // A token that was just made must be known.
        Route(.post, "/v1/join/check", body: .json, endsByItself: true, reads: .linearizable) { request in
            let question = try request.json(PreflightQuestion.self)
            return try .json(try await request.backend.preflight(question), index: nil)
        },
    ]
}
