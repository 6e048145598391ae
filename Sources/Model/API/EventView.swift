// SPDX-License-Identifier: Apache-2.0

/// One change of one object: `data` of `GET /v1/events`.
public struct EventView: Hashable, Sendable {
    public enum Change: String, Hashable, Codable, Sendable { case created, updated, deleted }

    /// Entry of the log that brought it.
    public var index: UInt64
    /// Place among the events of that entry, from 0.
    public var sub: Int
    /// One of `kinds`; a newer daemon may know more.
    public var kind: String
    /// Nil for kinds that have none.
    public var namespace: String?
    /// Name of the object; of a task its id.
    public var name: String
    public var change: Change
    /// Of the object after the change; when deleted, the index of the deletion.
    public var version: UInt64
    /// The object as it is now, if it has not changed again; nil else and when deleted: get it, or wait for the next event.
    public var object: Object?

    public static let kinds = ["app", "service", "task", "node", "volume", "config", "cluster"]

    public init(
        index: UInt64, sub: Int, kind: String, namespace: String?, name: String, change: Change, version: UInt64,
        object: Object? = nil
    ) {
        self.index = index
        self.sub = sub
        self.kind = kind
        self.namespace = namespace
        self.name = name
        self.change = change
        self.version = version
        self.object = object
    }

    public enum Object: Hashable, Sendable {
        case app(AppView)
        case service(ServiceView)
        case task(TaskView)
        case node(NodeView)
        case volume(VolumeView)
        case config(ConfigView)
        case cluster(ClusterView)
    }
}

extension EventView: Codable {
    private enum CodingKeys: String, CodingKey { case index, sub, kind, namespace, name, change, version, object }

    public init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: CodingKeys.self)
        index = try container.decode(UInt64.self, forKey: .index)
        sub = try container.decode(Int.self, forKey: .sub)
        kind = try container.decode(String.self, forKey: .kind)
        namespace = try container.decodeIfPresent(String.self, forKey: .namespace)
        name = try container.decode(String.self, forKey: .name)
        change = try container.decode(Change.self, forKey: .change)
        version = try container.decode(UInt64.self, forKey: .version)
        func object<Value: Decodable>(_ wrap: (Value) -> Object) throws -> Object? {
            try container.decodeIfPresent(Value.self, forKey: .object).map(wrap)
        }
        self.object =
            switch kind {
            case "app": try object(Object.app)
            case "service": try object(Object.service)
            case "task": try object(Object.task)
            case "node": try object(Object.node)
            case "volume": try object(Object.volume)
            case "config": try object(Object.config)
            case "cluster": try object(Object.cluster)
            default: nil
            }
    }

    /// Absent values are written as null: every name is always there.
    public func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: CodingKeys.self)
        try container.encode(index, forKey: .index)
        try container.encode(sub, forKey: .sub)
        try container.encode(kind, forKey: .kind)
        try container.encode(namespace, forKey: .namespace)
        try container.encode(name, forKey: .name)
        try container.encode(change, forKey: .change)
        try container.encode(version, forKey: .version)
        switch object {
        case nil: try container.encodeNil(forKey: .object)
        case .app(let view): try container.encode(view, forKey: .object)
        case .service(let view): try container.encode(view, forKey: .object)
        case .task(let view): try container.encode(view, forKey: .object)
        case .node(let view): try container.encode(view, forKey: .object)
        case .volume(let view): try container.encode(view, forKey: .object)
        case .config(let view): try container.encode(view, forKey: .object)
        case .cluster(let view): try container.encode(view, forKey: .object)
        }
    }
}
