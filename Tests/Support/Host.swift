// SPDX-License-Identifier: Apache-2.0
internal import Foundation
internal import Glibc

/// What this machine allows a test to do. Tests name `Host` in `.enabled(if:)` with the reason next to it.
public enum Host {
    public static var isRoot: Bool { geteuid() == 0 }

    public static let hasContainerd = program("containerd") != nil && program("runc") != nil
    public static let hasRegistry = program("docker-registry") != nil
    /// Images of tests are built from it.
    public static let hasBusybox = access("/bin/busybox", X_OK) == 0 && program("python3") != nil

    /// More is ready to run than there are processors for: times measured now say little.
    public static var isBusy: Bool {
        var load = [0.0]
        return getloadavg(&load, 1) == 1 && load[0] > 1.5 * Double(sysconf(Int32(_SC_NPROCESSORS_ONLN)))
    }

    /// Network namespaces can be made, not only named.
    public static let hasNamespaces: Bool = {
        guard isRoot, let ip = program("ip") else { return false }
        let name = "hmt-probe-\(getpid())"
        let made = try? Shell.runBlocking([ip, "netns", "add", name], timeout: .seconds(10))
        guard let made, made.succeeded else { return false }
        return (try? Shell.runBlocking([ip, "netns", "delete", name], timeout: .seconds(10)))?.succeeded ?? false
    }()

    /// Everything a daemon with real containers needs. Reason when false: `needsContainers`.
    public static let canRunContainers = hasNamespaces && hasContainerd && hasRegistry && hasBusybox
    public static let needsContainers =
        "needs root, network namespaces, containerd, runc, docker-registry and busybox (scripts/setup test)"

    /// Full path of a program, looked for where root's programs live too; nil when absent.
    public static func program(_ name: String) -> String? {
        let usual = ":/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin"
        for folder in ((environment("PATH") ?? "") + usual).split(separator: ":")
        where access("\(folder)/\(name)", X_OK) == 0 {
            return "\(folder)/\(name)"
        }
        return nil
    }

    /// The process exists; one that is waiting to be reaped does not count.
    public static func isAlive(_ pid: Int32) -> Bool {
        guard let stat = try? String(contentsOfFile: "/proc/\(pid)/stat", encoding: .utf8),
            let name = stat.lastIndex(of: ")")
        else { return false }
        return !stat[name...].dropFirst(2).hasPrefix("Z")
    }

    public static func hasFile(_ path: String) -> Bool { access(path, F_OK) == 0 }

    /// Memory a process holds; nil when it is gone.
    public static func residentBytes(_ pid: Int32) -> Int? {
        guard let fields = try? String(contentsOfFile: "/proc/\(pid)/statm", encoding: .utf8).split(separator: " "),
            fields.count > 1, let pages = Int(fields[1])
        else { return nil }
        return pages * sysconf(Int32(_SC_PAGESIZE))
    }

    /// A variable of the test run, such as `SEED` or `ROUNDS`.
    public static func environment(_ name: String) -> String? { ProcessInfo.processInfo.environment[name] }
}

/// Where the sources and the built programs are.
public enum Repository {
    public static let root: String = {
        var folder = URL(fileURLWithPath: #filePath)
        repeat {
            folder.deleteLastPathComponent()
            if FileManager.default.fileExists(atPath: folder.appendingPathComponent("Package.swift").path) { break }
        } while folder.path != "/"
        return folder.path
    }()

    /// `hivemind` as built next to the tests; `HIVEMIND_TEST_BINARY` names another one.
    public static let binary: String = {
        if let path = Host.environment("HIVEMIND_TEST_BINARY") { return path }
        let tests = (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")) ?? ""
        return URL(fileURLWithPath: tests).deletingLastPathComponent().appendingPathComponent("hivemind").path
    }()

    public static func script(_ name: String) -> String { "\(root)/scripts/\(name)" }

    /// - Parameter path: relative to the root of the repository.
    public static func text(_ path: String) throws -> String {
        try String(contentsOfFile: "\(root)/\(path)", encoding: .utf8)
    }
}
