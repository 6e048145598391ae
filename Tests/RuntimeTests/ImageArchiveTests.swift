// SPDX-License-Identifier: Apache-2.0
import Model
import Testing

@testable import ContainerRuntime

/// Writes tar files, right and wrong ones.
enum TestTar {
    static func entry(
        _ name: String, _ content: [UInt8] = [], type: Character = "0", link: String = "", size: String? = nil
    ) -> [UInt8] {
        var header = [UInt8](repeating: 0, count: 512)
        func put(_ text: String, _ at: Int) {
            for (index, byte) in text.utf8.enumerated() { header[at + index] = byte }
        }
        func octal(_ value: Int, _ width: Int) -> String {
            let digits = String(value, radix: 8)
            return String(repeating: "0", count: width - digits.count) + digits
        }
        put(String(name.prefix(100)), 0)
        put("0000644", 100)
        put(size ?? octal(content.count, 11), 124)
        put("00000000000", 136)
        put(String(repeating: " ", count: 8), 148)
        put(String(type), 156)
        put(link, 157)
        put("ustar\u{0}00", 257)
        put(octal(header.reduce(0) { $0 + Int($1) }, 6) + "\u{0} ", 148)
        return header + content + [UInt8](repeating: 0, count: (512 - content.count % 512) % 512)
    }

    static let end = [UInt8](repeating: 0, count: 1024)

    static func pax(_ fields: [String: String]) -> [UInt8] {
        var body = ""
        for (key, value) in fields {
            let rest = " \(key)=\(value)\n"
            var length = rest.utf8.count
            while "\(length)".utf8.count + rest.utf8.count != length {
                length = "\(length)".utf8.count + rest.utf8.count
            }
            body += "\(length)\(rest)"
        }
        return entry("pax", Array(body.utf8), type: "x")
    }
}

struct ImageArchiveTests {
    private func open(_ bytes: [UInt8]) throws -> (TemporaryDirectory, TarArchive) {
        let directory = try TemporaryDirectory()
        return (directory, try TarArchive(path: try directory.write("a.tar", bytes)))
    }

    @Test
    func `long names of both kinds, links and sizes are read`() throws {
        let long = String(repeating: "d/", count: 90) + "file"
        let (_, tar) = try open(
            TestTar.entry("./plain", Array("1".utf8)) + TestTar.entry("dir/", type: "5")
                + TestTar.entry("@LongLink", Array((long + "\u{0}").utf8), type: "L")
                + TestTar.entry("x", Array("2".utf8))
                + TestTar.pax(["path": long + "2", "mtime": "1.5"]) + TestTar.entry("x", Array("3".utf8))
                + TestTar.entry("dir/soft", type: "2", link: "../plain")
                + TestTar.entry("hard", type: "1", link: "plain")
                + TestTar.end)
        for (name, text) in [("plain", "1"), (long, "2"), (long + "2", "3"), ("dir/soft", "1"), ("/hard", "1")] {
            #expect(try tar.readAll(try tar.file(name), bytesMax: 10) == Array(text.utf8), "\(name)")
        }
        #expect(throws: ImageError.self) { try tar.file("dir") }
        #expect(throws: ImageError.self) { try tar.file("absent") }
    }

    @Test
    func `hostile archives are refused`() throws {
        let cases: [(String, [UInt8])] = [
            ("name that leads out", TestTar.entry("../etc/passwd", [1]) + TestTar.end),
            ("name that leads out within", TestTar.entry("a/../../b", [1]) + TestTar.end),
            ("pax name that leads out", TestTar.pax(["path": "../../x"]) + TestTar.entry("y", [1]) + TestTar.end),
            ("cut off", Array(TestTar.entry("a", [UInt8](repeating: 1, count: 2000)).prefix(1024))),
            ("huge size", TestTar.entry("a", [1], size: "77777777777") + TestTar.end),
            ("size no number", TestTar.entry("a", [1], size: "12x45678901") + TestTar.end),
            ("huge extension", TestTar.entry("a", type: "x", size: "77777777777") + TestTar.end),
            ("damaged pax", TestTar.entry("a", Array("999 path=x\n".utf8), type: "x") + TestTar.end),
            ("pax size", TestTar.pax(["size": "-5"]) + TestTar.entry("a", [1]) + TestTar.end),
            ("no tar", [UInt8](repeating: 65, count: 2048)),
            ("gzip", [0x1f, 0x8b] + [UInt8](repeating: 0, count: 1000)),
            ("short", [1, 2, 3]), ("empty", []),
        ]
        for (name, bytes) in cases {
            let error = #expect(throws: ImageError.self, "\(name)") { _ = try open(bytes) }
            #expect(error?.reason.code == .imageInvalid, "\(name)")
        }
    }

    @Test
    func `links cannot lead out or run in circles`() throws {
        let (_, tar) = try open(
            TestTar.entry("out", type: "2", link: "../../etc/passwd")
                + TestTar.entry("absolute", type: "2", link: "/etc/passwd") + TestTar.entry("a", type: "2", link: "b")
                + TestTar.entry("b", type: "2", link: "a") + TestTar.end)
        for name in ["out", "absolute", "a", "b"] { #expect(throws: ImageError.self) { _ = try tar.file(name) } }
    }

    @Test
    func `an archive of no image is refused`() throws {
        let directory = try TemporaryDirectory()
        let amd = Platform(os: "linux", architecture: "amd64", variant: nil)
        let bodies: [[UInt8]] = [
            TestTar.entry("file", [1]), TestTar.entry("manifest.json", Array("[]".utf8)),
            TestTar.entry("manifest.json", Array("{".utf8)),
            TestTar.entry("manifest.json", Array(#"[{"Config":"c","Layers":["l"]}]"#.utf8)),
            TestTar.entry("oci-layout", [1])
                + TestTar.entry("index.json", Array(#"{"schemaVersion":2,"manifests":[]}"#.utf8)),
        ]
        for (number, body) in bodies.enumerated() {
            let path = try directory.write("\(number).tar", body + TestTar.end)
            let error = #expect(throws: ImageError.self) { _ = try ImageArchive(path: path, platform: amd) }
            #expect(error?.reason.code == .imageInvalid)
        }
    }
}
