// SPDX-License-Identifier: Apache-2.0
import Model
import Testing

@testable import CLI

struct ParserTests {
    @Test(arguments: [
        ("80", PortSpec(hostPort: nil, containerPort: 80)),
        ("8080:80", PortSpec(hostPort: 8080, containerPort: 80)),
        ("8080:80/tcp", PortSpec(hostPort: 8080, containerPort: 80)),
        ("5353:53/udp", PortSpec(hostPort: 5353, containerPort: 53, protocol: .udp)),
        ("53/UDP", PortSpec(hostPort: nil, containerPort: 53, protocol: .udp)),
        ("65535:1", PortSpec(hostPort: 65535, containerPort: 1)),
        ("target=80,published=8080,mode=host", PortSpec(hostPort: 8080, containerPort: 80, mode: .host)),
        ("mode=ingress,target=53,protocol=udp", PortSpec(hostPort: nil, containerPort: 53, protocol: .udp)),
    ])
    func `ports are read`(text: String, port: PortSpec) throws {
        #expect(try PortParser.port(text) == port)
    }

    @Test(arguments: [
        ("target=80,mode=host", "the port of the node must be named"), ("mode=host", "target=80"),
        ("target=80,mode=bridge", "neither ingress nor host"), ("target=80,host=1", "`host` is none of target"),
        ("target=80,target=81", "`target` is given twice"), ("target=80,published=x", "`x` is not a number"),
        ("target=80,published=1,protocol=sctp", "neither tcp nor udp"), ("target=80,,", "`` is no NAME=VALUE"),
        ("", "the container port is missing"), (":80", "the host port is missing"),
        ("80:", "the container port is missing"), ("0:80", "within 1 to 65535"), ("80:65536", "within 1 to 65535"),
        ("http", "not a number"), ("-1:80", "ranges"), ("8000-8010:80", "ranges"), ("80/sctp", "neither tcp nor udp"),
        ("80/tcp/udp", "more than one `/`"), ("127.0.0.1:8080:80", "every address"), ("127.0.0.1:80", "every address"),
        ("[::1]:8080:80", "every address"), ("٨٠", "not a number"),
    ])
    func `bad ports are refused with the cause`(text: String, cause: String) {
        expectRefusal(cause) { try PortParser.port(text) }
    }

    @Test func `a port bound to one address gets told how to write it`() {
        let error = #expect(throws: CLIError.self) { try PortParser.port("127.0.0.1:8080:80") }
        #expect(error?.hint == "leave the address out: 8080:80")
    }

    @Test(
        arguments: [
            ("0", 0), ("512", 512), ("512b", 512), ("512KiB", 512 << 10), ("1k", 1024), ("256m", 256 << 20),
            ("256MB", 256 << 20), ("1g", 1 << 30), ("1.5G", 3 << 29), ("2t", 2 << 40),
        ] as [(String, Int64)])
    func `sizes are read`(text: String, bytes: Int64) throws {
        #expect(try SizeParser.bytes(text, flag: "--memory") == bytes)
    }

    @Test(arguments: [
        ("", "not a size"), ("m", "not a size"), ("-1m", "not a size"), ("1x", "`x` is not a unit"),
        ("1mm", "not a unit"), ("1 m", "not a unit"), (".5g", "not a size"), ("1e9", "not a unit"),
        ("99999999t", "too large"),
        ("0.1", "less than a byte"),
    ])
    func `bad sizes are refused with the cause`(text: String, cause: String) {
        expectRefusal(cause) { try SizeParser.bytes(text, flag: "--memory") }
    }

    @Test(arguments: [("0.5", 500), ("2", 2000), ("250m", 250), ("1.001", 1001), ("0.001", 1)])
    func `cores are read`(text: String, millis: Int) throws {
        #expect(try SizeParser.cpuMillis(text, flag: "--cpu") == millis)
    }

    @Test(arguments: [
        ("", "not a number"), ("half", "not a number"), ("-1", "not a number"), ("0", "less than a thousandth"),
        ("0.0001", "less than a thousandth"), ("0.5005", "finer"), ("1001", "more than 1000"), ("nan", "not a number"),
        ("1e3", "not a number"), ("inf", "not a number"),
    ])
    func `bad cores are refused with the cause`(text: String, cause: String) {
        expectRefusal(cause) { try SizeParser.cpuMillis(text, flag: "--cpu") }
    }

    @Test(
        arguments: [
            ("500ms", 500), ("10s", 10_000), ("1m30s", 90_000), ("1.5h", 5_400_000), ("2h", 7_200_000),
            ("1d", 86_400_000),
            ("0s", 0),
        ] as [(String, Int64)])
    func `durations are read`(text: String, milliseconds: Int64) throws {
        #expect(try DurationParser.milliseconds(text, flag: "--timeout") == milliseconds)
    }

    @Test(arguments: [
        ("", "empty"), ("10", "no unit"), ("s", "not a duration"), ("10x", "`x` is not a unit"),
        ("-5s", "not a duration"),
        ("1s5", "no unit"), ("99999999d", "ten years"),
    ])
    func `bad durations are refused with the cause`(text: String, cause: String) {
        expectRefusal(cause) { try DurationParser.milliseconds(text, flag: "--timeout") }
    }

    @Test func `since is a time or a duration back from now`() throws {
        let now = FakeTerminal.now
        #expect(try DurationParser.since("10m", now: now) == now + -600_000)
        #expect(try DurationParser.since("2026-03-01T12:30:00Z", now: now).description == "2026-03-01T12:30:00.000Z")
        expectRefusal("is not a duration") { try DurationParser.since("noon", now: now) }
    }

    @Test func `mounts are read`() throws {
        func mount(_ text: String) throws -> MountSpec { try MountParser.volume(text, directory: "/home/me/app") }
        #expect(try mount("data:/data") == MountSpec(source: .volume("data"), target: "/data"))
        #expect(try mount("data:/data:ro") == MountSpec(source: .volume("data"), target: "/data", readOnly: true))
        #expect(try mount("data:/data:rw") == MountSpec(source: .volume("data"), target: "/data"))
        #expect(try mount("/etc/x:/x:ro") == MountSpec(source: .bind("/etc/x"), target: "/x", readOnly: true))
        #expect(try mount("./www:/x").source == .bind("/home/me/app/www"))
        #expect(try mount("../www:/x").source == .bind("/home/me/www"))
        #expect(try mount(".:/x").source == .bind("/home/me/app"))
        #expect(try mount("a/b:/x").source == .bind("/home/me/app/a/b"))
        #expect(try MountParser.tmpfs("/t") == MountSpec(source: .tmpfs(sizeBytes: nil), target: "/t"))
        #expect(try MountParser.tmpfs("/t:size=64m") == MountSpec(source: .tmpfs(sizeBytes: 64 << 20), target: "/t"))
    }

    @Test(arguments: [
        ("data", "only one of source and target"), ("/data", "only one of source and target"),
        (":/data", "no source"), ("data:data", "not an absolute path"), ("data:/d:rx", "neither ro nor rw"),
        ("a:/b:ro:z", "more than three"), ("Data:/d", "not a volume name"), ("~/x:/d", "did not expand"),
    ])
    func `bad mounts are refused with the cause`(text: String, cause: String) {
        expectRefusal(cause) { try MountParser.volume(text, directory: "/") }
    }

    @Test(arguments: [("t", "not an absolute path"), ("/t:64m", "not size="), ("/t:size=x", "not a size")])
    func `bad memory mounts are refused with the cause`(text: String, cause: String) {
        expectRefusal(cause) { try MountParser.tmpfs(text) }
    }

    @Test func `variables come from the flag, the caller's environment, or a file`() throws {
        let own = ["TOKEN": "t=1"]
        #expect(try EnvironmentParser.variable("A=b=c", flag: "--env") { own[$0] } == ("A", "b=c"))
        #expect(try EnvironmentParser.variable("A=", flag: "--env") { own[$0] } == ("A", ""))
        #expect(try EnvironmentParser.variable("TOKEN", flag: "--env") { own[$0] } == ("TOKEN", "t=1"))
        let read = try EnvironmentParser.file("# c\n\nA=1\r\n  B=\"x\"\nTOKEN\n", name: "f") { own[$0] }
        #expect(read.map { "\($0.0)=\($0.1)" } == ["A=1", "B=\"x\"", "TOKEN=t=1"])
    }

    @Test func `bad variables are refused with file and line`() {
        expectRefusal("no such variable") { try EnvironmentParser.variable("NOPE", flag: "--env") { _ in nil } }
        expectRefusal("without a name") { try EnvironmentParser.variable("=x", flag: "--env") { _ in nil } }
        expectRefusal("my.env:2: `NOPE`") {
            try EnvironmentParser.file("A=1\nNOPE\n", name: "my.env") { _ in nil }
        }
    }

    private func expectRefusal<Value>(
        _ cause: String, _ location: SourceLocation = #_sourceLocation, _ body: () throws -> Value
    ) {
        do {
            _ = try body()
            Issue.record("was accepted, should say `\(cause)`", sourceLocation: location)
        } catch let error as CLIError {
            #expect(error.exit == .usage && error.message.contains(cause), "\(error)", sourceLocation: location)
            #expect(error.hint != nil, sourceLocation: location)
        } catch {
            Issue.record("\(error)", sourceLocation: location)
        }
    }
}
