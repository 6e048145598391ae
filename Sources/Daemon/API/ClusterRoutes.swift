// SPDX-License-Identifier: Apache-2.0
internal import HTTPTypes
internal import Model

/// The members, who leads, and snapshots of the whole state.
enum ClusterRoutes {
    static let all: [Route] = [
        Route(.get, "/v1/cluster", reads: .local) { request in
            let index = await request.backend.appliedIndex()
            return try .json(try await request.backend.cluster(), index: index)
        },
        Route(.patch, "/v1/cluster", body: .json) { request in
            let view = try await request.backend.patchCluster(try request.json(ClusterPatch.self))
            return try .json(view, index: await request.backend.appliedIndex())
        },
        Route(.post, "/v1/cluster/transfer-leader", body: .json) { request in
            // A body is not needed: without one the leader chooses.
            let target = request.body.readableBytes > 0 ? try request.json(TransferLeaderRequest.self).to : nil
            if target?.isEmpty == true {
                throw Problem(.badRequest, "`to` is empty", hint: "name a member, or leave `to` out")
            }
            let view = try await request.backend.transferLeader(to: target)
            return try .json(view, index: await request.backend.appliedIndex())
        },
        Route(.get, "/v1/snapshots") { request in
            let list = try await request.backend.snapshots()
            return try .json(list, index: list.index)
        },
        Route(.post, "/v1/snapshots", isImageWork: true) { request in
            let snapshot = try await request.backend.takeSnapshot()
            return try .json(snapshot, .created, index: await request.backend.appliedIndex())
        },
        Route(.post, "/v1/backup", isImageWork: true) { request in
            let index = try await request.backend.readBarrier(request.consistency ?? .linearizable)
            var reply = APIReply(.ok, index: index)
            reply.body = .stream(try await request.backend.backup())
            return reply
        },
    ]
}
