// SPDX-License-Identifier: Apache-2.0
internal import HTTPTypes
internal import Model

/// Certificates of the nodes and the authority of the cluster.
enum SecurityRoutes {
    static let all: [Route] = [
        Route(.get, "/v1/security/certificates", reads: .local) { request in
            let view = try await request.backend.certificates()
            return try .json(view, index: view.index)
        },
        Route(.post, "/v1/security/certificates/renew", body: .json) { request in
            let wanted =
                request.body.readableBytes > 0
                ? try request.json(CertificateRenewRequest.self) : CertificateRenewRequest()
            let view = try await request.backend.renewCertificates(wanted)
            return try .json(view, .accepted, index: view.index)
        },
        Route(.post, "/v1/security/authority/rotate") { request in
            let view = try await request.backend.rotateAuthority()
            return try .json(view, .accepted, index: view.index)
        },
    ]
}
