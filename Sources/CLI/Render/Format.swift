// SPDX-License-Identifier: Apache-2.0
internal import Model

/// Values as a person reads them.
enum Format {
    /// `45s`, `12m`, `3h`, `9d`.
    static func age(_ from: Timestamp?, now: Timestamp) -> String? {
        guard let from else { return nil }
        return duration(seconds: max(0, (now - from) / 1000))
    }

    static func duration(seconds: Int64) -> String {
        switch seconds {
        case ..<120: "\(seconds)s"
        case ..<7200: "\(seconds / 60)m"
        case ..<172_800: "\(seconds / 3600)h"
        default: "\(seconds / 86_400)d"
        }
    }

    /// `0.4 ms`, `12 ms`.
    static func milliseconds(_ value: Double) -> String {
        value < 10 ? "\(Double(Int64(value * 10 + 0.5)) / 10) ms" : "\(Int64(value + 0.5)) ms"
    }

    /// `80 ms ago`, `3s ago`.
    static func contact(milliseconds: Int64) -> String {
        milliseconds < 2000 ? "\(milliseconds) ms ago" : "\(duration(seconds: milliseconds / 1000)) ago"
    }

    /// `512 B`, `1.5 MiB`.
    static func bytes(_ count: Int64) -> String {
        guard count >= 1024 else { return "\(count) B" }
        var unit = 0
        var scale: Int64 = 1024
        let units = ["KiB", "MiB", "GiB", "TiB", "PiB"]
        while unit + 1 < units.count, count / scale >= 1024 {
            scale *= 1024
            unit += 1
        }
        let tenths = (count / scale) * 10 + (count % scale) * 10 / scale
        return tenths % 10 == 0 ? "\(tenths / 10) \(units[unit])" : "\(tenths / 10).\(tenths % 10) \(units[unit])"
    }

    /// Thousandths of a core: `0.5`, `2`.
    static func cpu(millis: Int) -> String {
        let rest = millis % 1000
        guard rest > 0 else { return "\(millis / 1000)" }
        var digits = String(1000 + rest).dropFirst()
        while digits.last == "0" { digits.removeLast() }
        return "\(millis / 1000).\(digits)"
    }

    static func replicas(_ counts: ReplicaCounts) -> Cell {
        let paint: Paint = counts.ready >= counts.desired ? .plain : .busy
        return Cell("\(counts.ready)/\(counts.desired)", paint)
    }

    /// `8080->80/tcp, 53/udp, host:443->443/tcp`
    static func ports(_ ports: [PortView]) -> String {
        ports.map { port in
            "\(port.mode == .host ? "host:" : "")\(port.hostPort.map { "\($0)->" } ?? "")\(port.containerPort)/\(port.protocol.rawValue)"
        }.joined(separator: ", ")
    }

    static func reason(_ reason: Reason?) -> String? { reason.map { "\($0.message)" } }

    static func mount(_ mount: MountSpec) -> String {
        let source =
            switch mount.source {
            case .volume(let name): "volume \(name)"
            case .bind(let path): "bind \(path)"
            case .tmpfs(let size): size.map { "tmpfs of \(bytes($0))" } ?? "tmpfs"
            }
        return "\(source) on \(mount.target)\(mount.readOnly ? " (read-only)" : "")"
    }

    /// `web.default.hive.internal`
    static func name(_ labels: String...) -> String { (labels + ["hive.internal"]).joined(separator: ".") }

    /// `sha256:0123456789ab…` is enough to tell digests apart.
    static func digest(_ digest: String) -> String {
        guard let colon = digest.firstIndex(of: ":") else { return digest }
        return String(digest[digest.index(after: colon)...].prefix(12))
    }
}
