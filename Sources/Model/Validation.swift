// SPDX-License-Identifier: Apache-2.0

/// What may be asked for. Pure: the same text is refused with the same words on every node.
///
/// A refusal names the field, the value and the rule; a spec with several faults is refused once, with all of them.
public enum Validation {
    public static let replicasMax = 1000
    public static let servicesMax = 100
    public static let memoryBytesMin: Int64 = 4 << 20
    public static let stopTimeoutMillisecondsMax = 3_600_000
    public static let configBytesMax = 1 << 20

    /// Name of an app, a service, a namespace or a volume: a DNS label of at most 40 characters.
    /// - Parameter kind: the word for it in the refusal, `app`.
    public static func name(_ text: String, kind: String) throws(Problem) {
        if let fault = labelFault(text, max: 40) {
            throw Problem(
                .invalidName, "\(kind) name \(shown(text)) \(fault)",
                hint: "use 1 to 40 of a-z, 0-9 and -, starting and ending with a letter or digit, like `web-1`")
        }
    }

    /// Name and namespace of an app or volume.
    public static func key(_ key: ObjectKey, kind: String) throws(Problem) {
        try name(key.namespace, kind: "namespace")
        try name(key.name, kind: kind)
    }

    /// Name of a config: at most 200 of `A-Z a-z 0-9 . _ / -`.
    public static func configName(_ text: String) throws(Problem) {
        let fault: String? =
            if text.isEmpty {
                "is empty"
            } else if text.utf8.count > 200 {
                "has \(text.utf8.count) characters, more than 200"
            } else if let bad = text.unicodeScalars.first(where: { !isConfigScalar($0) }) {
                "contains \(shown(String(bad)))"
            } else {
                nil
            }
        if let fault {
            throw Problem(
                .invalidName, "config name \(shown(text)) \(fault)",
                hint: "use 1 to 200 of A-Z, a-z, 0-9, `.`, `_`, `/` and `-`")
        }
    }

    /// Content of a config, at most 1 MiB.
    public static func configData(_ data: String) throws(Problem) {
        guard data.utf8.count > configBytesMax else { return }
        throw Problem(
            .payloadTooLarge, "the config has \(data.utf8.count) bytes, more than \(configBytesMax)",
            hint: "keep large data in a volume")
    }

    /// A reference of an image, as far as it can be judged without its registry: not empty, no white space.
    public static func image(_ reference: String) throws(Problem) {
        guard let fault = imageFault(reference) else { return }
        throw Problem(.invalidName, "image name \(fault)", hint: "use a name like `nginx:1.27` or `host:5000/team/app`")
    }

    /// 0...1000.
    public static func replicas(_ count: Int) throws(Problem) {
        guard !(0...replicasMax).contains(count) else { return }
        throw Problem(.invalidSpec, "replicas: \(count) is not in 0...\(replicasMax)")
    }

    /// The spec with its spellings made one (capabilities `CAP_…`, signals `SIG…`, no trailing slashes), services
    /// sorted by name.
    /// - Throws: `invalidName` for the app's own name, `invalidSpec` with every fault of the services.
    /// - Complexity: linear in the size of the spec.
    public static func app(_ spec: AppSpec) throws(Problem) -> AppSpec {
        try key(spec.key, kind: "app")
        var faults = SpecFaults()
        if !(1...servicesMax).contains(spec.services.count) {
            faults.add("services", "has \(spec.services.count) entries, not 1...\(servicesMax)")
        }
        var names: Set<String> = []
        var hostPorts: [String: String] = [:]
        for service in spec.services {
            if !names.insert(service.name).inserted {
                faults.add("services", "has two named \(shown(service.name))")
            }
            for port in service.ports {
                guard let hostPort = port.hostPort else { continue }
                let text = "\(hostPort)/\(port.protocol.rawValue)"
                if let other = hostPorts.updateValue(service.name, forKey: text), other != service.name {
                    faults.add("services", "\(shown(other)) and \(shown(service.name)) both publish \(text)")
                }
            }
        }
        var services: [ServiceSpec] = []
        // More than the limit is refused already; the rest need not be read.
        for service in spec.services.prefix(servicesMax) {
            services.append(normalised(service, "services.\(service.name)", &faults))
        }
        try faults.throwIfAny(of: "app \(shown(spec.key.description))")
        return AppSpec(key: spec.key, services: services)
    }

    /// One service by itself, normalised like `app`.
    public static func service(_ spec: ServiceSpec) throws(Problem) -> ServiceSpec {
        var faults = SpecFaults()
        let result = normalised(spec, "", &faults)
        try faults.throwIfAny(of: "service \(shown(spec.name))")
        return result
    }

    // MARK: Words shared by the rules

    /// `text` for a message: in backticks, control characters replaced, at most 60 characters.
    public static func shown(_ text: String) -> String {
        let clean = String(String.UnicodeScalarView(text.unicodeScalars.prefix(60).map { isControl($0) ? "?" : $0 }))
        return "`\(clean)\(text.unicodeScalars.count > 60 ? "…" : "")`"
    }

    static func isControl(_ scalar: Unicode.Scalar) -> Bool { scalar.value < 0x20 || scalar.value == 0x7f }

    /// Why `text` is no DNS label, or nil.
    static func labelFault(_ text: String, max: Int) -> String? {
        if text.isEmpty { return "is empty" }
        if text.utf8.count > max { return "has \(text.utf8.count) characters, more than \(max)" }
        if let bad = text.unicodeScalars.first(where: { !("a"..."z" ~= $0 || "0"..."9" ~= $0 || $0 == "-") }) {
            return "contains \(shown(String(bad)))"
        }
        return text.hasPrefix("-") || text.hasSuffix("-") ? "starts or ends with `-`" : nil
    }

    private static func isConfigScalar(_ scalar: Unicode.Scalar) -> Bool {
        switch scalar {
        case "a"..."z", "A"..."Z", "0"..."9", ".", "_", "/", "-": true
        default: false
        }
    }
}

/// Faults of one spec in the order they were found; at most 20 are told.
struct SpecFaults {
    private var lines: [String] = []
    private var hint: String?

    mutating func add(_ field: String, _ fault: String, hint: String? = nil) {
        lines.append("\(field): \(fault)")
        self.hint = self.hint ?? hint
    }

    func throwIfAny(of object: String) throws(Problem) {
        guard !lines.isEmpty else { return }
        let told = lines.prefix(20).joined(separator: "; ")
        let rest = lines.count > 20 ? "; and \(lines.count - 20) more" : ""
        throw Problem(.invalidSpec, "\(object) is not valid: \(told)\(rest)", hint: hint)
    }
}
