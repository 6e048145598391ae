// SPDX-License-Identifier: Apache-2.0
internal import Model

/// `[HOST:]CONTAINER[/tcp|/udp]`
enum PortParser {
    static let form = "write [HOST:]CONTAINER[/udp], as 8080:80, 80 or 5353:53/udp"

    static func port(_ text: String) throws(CLIError) -> PortSpec {
        func refuse(_ why: String, hint: String = form) -> CLIError { .usage("--port `\(text)`: \(why)", hint: hint) }
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
