// SPDX-License-Identifier: Apache-2.0
internal import Model

/// `[HOST:]CONTAINER[/tcp|/udp]`, or Compose's long form: `target=80,published=8080,protocol=tcp,mode=host`.
enum PortParser {
    static let form =
        "write [HOST:]CONTAINER[/udp], as 8080:80, 80 or 5353:53/udp, or target=80,published=8080,mode=host"

    static func port(_ text: String) throws(CLIError) -> PortSpec {
        text.contains("=") ? try long(text) : try short(text, within: text)
    }

    private static func long(_ text: String) throws(CLIError) -> PortSpec {
        func refuse(_ why: String, hint: String = form) -> CLIError { .usage("--port `\(text)`: \(why)", hint: hint) }
        var fields: [String: String] = [:]
        for part in text.split(separator: ",", omittingEmptySubsequences: false) {
            let halves = part.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            guard halves.count == 2 else { throw refuse("`\(part)` is no NAME=VALUE") }
            let name = String(halves[0])
            guard ["target", "published", "protocol", "mode"].contains(name) else {
                throw refuse("`\(name)` is none of target, published, protocol and mode")
            }
            guard fields.updateValue(String(halves[1]), forKey: name) == nil else {
                throw refuse("`\(name)` is given twice")
            }
        }
        guard let target = fields["target"] else { throw refuse("the port of the container is missing (target=80)") }
        let mode = fields["mode"].map(PortMode.init(rawValue:)) ?? .ingress
        guard let mode else { throw refuse("`\(fields["mode"] ?? "")` is neither ingress nor host") }
        if mode == .host, fields["published"] == nil {
            throw refuse("in mode host the port of the node must be named", hint: "add published=\(target)")
        }
        let published = fields["published"].map { "\($0):" } ?? ""
        var port = try short("\(published)\(target)/\(fields["protocol"] ?? "tcp")", within: text)
        port.mode = mode
        return port
    }

    /// - Parameter whole: as it was written, for errors.
    private static func short(_ text: String, within whole: String) throws(CLIError) -> PortSpec {
        func refuse(_ why: String, hint: String = form) -> CLIError { .usage("--port `\(whole)`: \(why)", hint: hint) }
        let halves = text.split(separator: "/", omittingEmptySubsequences: false)
        guard halves.count <= 2 else { throw refuse("has more than one `/`") }
        var transport = PortProtocol.tcp
        if halves.count == 2 {
            guard let named = PortProtocol(rawValue: halves[1].lowercased()) else {
                throw refuse("`\(halves[1])` is neither tcp nor udp")
            }
            transport = named
        }
        let parts = halves[0].split(separator: ":", omittingEmptySubsequences: false)
        if parts.count > 2 || parts.first.map({ IPv4Address($0) != nil || $0.hasPrefix("[") }) == true {
            throw refuse(
                "a port is published on every address of every node, not on one",
                hint: "leave the address out: \(parts.suffix(2).filter { UInt16($0) != nil }.joined(separator: ":"))")
        }
        func number(_ part: Substring, _ what: String) throws(CLIError) -> UInt16 {
            if part.contains("-") { throw refuse("ranges are not supported", hint: "give --port once for each port") }
            guard !part.isEmpty, part.allSatisfy({ $0.isASCII && $0.isNumber }) else {
                throw refuse(part.isEmpty ? "the \(what) port is missing" : "`\(part)` is not a number")
            }
            guard let value = UInt16(part), value > 0 else {
                throw refuse("the \(what) port must be within 1 to 65535")
            }
            return value
        }
        guard parts.count == 2 else {
            return PortSpec(hostPort: nil, containerPort: try number(parts[0], "container"), protocol: transport)
        }
        return PortSpec(
            hostPort: try number(parts[0], "host"), containerPort: try number(parts[1], "container"),
            protocol: transport)
    }
}
