// SPDX-License-Identifier: Apache-2.0
internal import HTTPTypes
internal import Model

/// Who asks.
struct Caller: Hashable, Sendable {
    enum Kind: String, Sendable { case socket, certificate, token, anybody }

    var kind: Kind
    /// Of the token or the node.
    var name: String
    /// Id of the token.
    var token: String?
    var role: APIRole
    /// Nil: all.
    var namespace: String?
    var expiresAt: Timestamp?

    /// Whoever may open the socket.
    static let root = Caller(kind: .socket, name: "root", role: .admin)
    /// Asks for what anybody may see.
    static let nobody = Caller(kind: .anybody, name: "", role: .viewer)
}

/// Who may do what: a table from what a path is about to the role it takes. What is not in it takes an admin.
enum Authorization {
    enum Verb: String, Sendable { case read, write }

    /// What paths are about; named as people name it to `can-i`.
    enum Kind: String, Sendable, CaseIterable {
        case app, service, task, operation, volume, config, event
        case why
        case image
        case node, status, cluster, network, identity
        case query, metrics
        case membership, security, snapshot, token
        case other
    }

    /// What a token that is bound to a namespace can do with a kind.
    enum Reach: Sendable {
        /// In its own namespace.
        case namespace
        /// Facts of the cluster that are nobody's in particular.
        case everyone
        /// Nothing.
        case cluster
    }

    struct Need: Hashable, Sendable {
        var role: APIRole
        var reach: Reach
    }

    static func need(_ verb: Verb, _ kind: Kind) -> Need {
        switch (kind, verb) {
        case (.app, .read), (.service, .read), (.task, .read), (.operation, .read), (.volume, .read), (.config, .read),
            (.event, .read), (.why, .read):
            Need(role: .viewer, reach: .namespace)
        case (.app, .write), (.volume, .write), (.config, .write):
            Need(role: .operator, reach: .namespace)
        case (.node, .read), (.status, .read), (.cluster, .read), (.identity, .read):
            Need(role: .viewer, reach: .everyone)
        case (.image, .read), (.network, .read), (.query, .read), (.metrics, .read):
            Need(role: .viewer, reach: .cluster)
        case (.image, .write), (.node, .write): Need(role: .operator, reach: .cluster)
        case (.service, .write), (.task, .write), (.operation, .write), (.event, .write), (.why, .write),
            (.status, .write), (.cluster, .write), (.network, .write), (.identity, .write), (.query, .write),
            (.metrics, .write), (.membership, _), (.security, _), (.snapshot, _), (.token, _), (.other, _):
            Need(role: .admin, reach: .cluster)
        }
    }

    /// What a route does to what.
    static func subject(of route: Route) -> (verb: Verb, kind: Kind) {
        let texts = route.parts.map { part in
            if case .text(let text) = part { text } else { "" }
        }
        let verb: Verb = route.method == .get ? .read : .write
        guard texts.first == "v1", texts.count > 1 else { return (verb, texts == ["metrics"] ? .metrics : .other) }
        switch texts[1] {
        case "apps": return (verb, .app)
        case "services": return (verb, .service)
        case "tasks": return (verb, .task)
        case "operations": return (verb, .operation)
        case "volumes": return (verb, .volume)
        case "configs": return (verb, .config)
        case "events": return (verb, .event)
        case "why": return (verb, .why)
        case "images": return (verb, .image)
        case "status": return (verb, .status)
        case "network", "networks": return (verb, .network)
        case "whoami", "can-i": return (verb, .identity)
        // SQL travels in a body, and cannot write.
        case "query": return (.read, .query)
        case "rebalance": return (verb, .node)
        case "nodes": return route.method == .delete ? (verb, .membership) : (verb, .node)
        // All below it is about who belongs to it.
        case "cluster": return texts.count == 2 ? (verb, .cluster) : (verb, .membership)
        case "snapshots", "backup": return (verb, .snapshot)
        case "tokens": return (verb, .token)
        case "security": return (verb, .security)
        default: return (verb, .other)
        }
    }

    /// - Parameter namespace: that the request names; nil for all, or for none in particular.
    /// - Throws: `forbidden`, saying what would be needed.
    static func judge(_ caller: Caller, _ route: Route, namespace: String?) throws(Problem) {
        if route.isPublic { return }
        let (verb, kind) = subject(of: route)
        try judge(caller, verb, kind, namespace: namespace)
    }

    static func judge(_ caller: Caller, _ verb: Verb, _ kind: Kind, namespace: String?) throws(Problem) {
        let need = need(verb, kind)
        guard caller.role >= need.role else {
            throw Problem(
                .forbidden,
                "\(caller) is \(caller.role.phrase) and may not \(verb.rawValue) \(kind.plural): that takes "
                    + (need.role == .admin ? need.role.phrase : "\(need.role.phrase) or an admin"),
                hint: "ask an admin for another token: hivemind auth token create --role \(need.role.rawValue)")
        }
        guard let own = caller.namespace else { return }
        switch need.reach {
        case .everyone: return
        case .namespace:
            guard namespace == own else {
                throw Problem(
                    .forbidden,
                    "\(caller) is bound to namespace `\(own)` and may not \(verb.rawValue) \(kind.plural) of "
                        + (namespace.map { Validation.shown($0) } ?? "all namespaces"),
                    hint: "use --namespace \(own), or ask an admin for a token of another namespace")
            }
        case .cluster:
            throw Problem(
                .forbidden,
                "\(caller) is bound to namespace `\(own)` and may not \(verb.rawValue) \(kind.plural), which are in none",
                hint: "ask an admin for a token without --namespace")
        }
    }
}

extension Authorization {
    /// Whoever is bound to a namespace must not leave it through the machine: no directories of the node, no capabilities
    /// beyond what every container has.
    static func judge(_ caller: Caller, _ spec: AppSpec) throws(Problem) {
        guard let own = caller.namespace else { return }
        let hint = "ask an operator who is not bound to a namespace to deploy it"
        for service in spec.services {
            for mount in service.mounts {
                guard case .bind(let path) = mount.source else { continue }
                throw Problem(
                    .forbidden,
                    "\(caller) is bound to namespace `\(own)` and may not mount \(Validation.shown(path)) of the node",
                    hint: hint)
            }
            if let capability = service.capabilitiesAdd.first {
                throw Problem(
                    .forbidden, "\(caller) is bound to namespace `\(own)` and may not add \(capability)", hint: hint)
            }
        }
    }
}

extension Caller: CustomStringConvertible {
    /// For refusals and logs.
    var description: String {
        switch kind {
        case .socket: "whoever opened the socket"
        case .anybody: "anybody"
        case .certificate: "node `\(name)`"
        case .token: name.isEmpty ? "token \(token ?? "")" : "token \(token ?? "") (`\(name)`)"
        }
    }
}

extension APIRole {
    fileprivate var phrase: String { self == .viewer ? "a viewer" : "an \(rawValue)" }
}

extension Authorization.Kind {
    var plural: String {
        switch self {
        case .app, .service, .task, .operation, .volume, .config, .event, .image, .node, .network, .snapshot, .token:
            rawValue + "s"
        case .query: "queries"
        case .membership: "what the cluster consists of"
        case .security: "certificates"
        case .why: "reasons"
        case .identity: "its own identity"
        case .status, .cluster: "the state of the cluster"
        case .metrics: rawValue
        case .other: "what this path is about"
        }
    }
}

// MARK: - can-i

extension Authorization {
    /// Words of people for verbs.
    private static let verbs: [String: Verb] = [
        "read": .read, "get": .read, "list": .read, "ls": .read, "info": .read, "logs": .read, "watch": .read,
        "write": .write, "create": .write, "put": .write, "set": .write, "update": .write, "patch": .write,
        "deploy": .write, "scale": .write, "restart": .write, "delete": .write, "rm": .write, "pull": .write,
        "import": .write, "drain": .write, "rebalance": .write, "cordon": .write, "label": .write, "revoke": .write,
    ]

    /// - Throws: `badRequest` for a word that is none of ours.
    static func verb(_ text: String) throws(Problem) -> Verb {
        guard let verb = verbs[text] else {
            throw Problem(
                .badRequest, "\(Validation.shown(text)) is no verb",
                hint: "use read or write, or one of \(verbs.keys.sorted().joined(separator: ", "))")
        }
        return verb
    }

    /// Singular or plural.
    static func kind(_ text: String) throws(Problem) -> Kind {
        let known = Kind.allCases.filter { $0 != .other }
        guard let kind = known.first(where: { text == $0.rawValue || text == $0.rawValue + "s" }) else {
            throw Problem(
                .badRequest, "\(Validation.shown(text)) is no kind of object",
                hint: "use one of \(known.map(\.rawValue).joined(separator: ", "))")
        }
        return kind
    }
}
