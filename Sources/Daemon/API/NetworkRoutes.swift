// SPDX-License-Identifier: Apache-2.0
internal import HTTPTypes
internal import Model

/// The network as a whole.
enum NetworkRoutes {
    static let all: [Route] = [
        Route(.get, "/v1/networks", reads: .local) { request in
            let list = try await request.backend.networks()
            return try .json(list, index: list.index)
        },
        Route(.get, "/v1/networks/{name}", reads: .local) { request in
            let list = try await request.backend.networks()
            let name = request.names["name"] ?? ""
            guard let network = list.items.first(where: { $0.name == name }) else {
                throw Problem(
                    .notFound, "no network \(Validation.shown(name))",
                    hint: "there are \(list.items.map(\.name).joined(separator: " and "))")
            }
            return try .json(network, index: list.index)
        },
        Route(.get, "/v1/network/doctor", endsByItself: true, reads: .local) { request in
            try .json(try await request.backend.diagnoseNetwork(), index: nil)
        },
        Route(.get, "/v1/network/addresses", endsByItself: true, reads: .local) { request in
            try .json(try await request.backend.checkAddresses(), index: nil)
        },
    ]
}
