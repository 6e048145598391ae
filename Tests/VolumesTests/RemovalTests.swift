// SPDX-License-Identifier: Apache-2.0
import Foundation
import Glibc
import Model
import TestSupport
import Testing

@testable import Volumes

@Suite struct RemovalTests {
    let key = ObjectKey(namespace: "shop", name: "data")

    @Test func `a deep tree goes with its links, and what they point at stays`() async throws {
        try await withTemporaryDirectory("vol") { temporary in
            try makeDirectory(temporary.file("outside/folder"))
            try temporary.write("mine", to: "outside/folder/file")
            let volumes = LocalVolumes(directory: temporary.file("volumes"))
            var path = try await volumes.ensure(key).path
            for level in 0..<Removal.depthMax * 3 + 5 {
                path += "/d"
                #expect(mkdir(path, 0o755) == 0)
                try Data("x".utf8).write(to: URL(fileURLWithPath: path + "/file"))
                if level % 20 == 0 {
                    try link(path + "/folder", to: temporary.file("outside/folder"))
                    try link(path + "/up", to: "../../../../../outside")
                    try link(path + "/nowhere", to: "/does/not/exist")
                }
            }
            try await volumes.delete(key)
            #expect(!exists(temporary.file("volumes/shop")))
            #expect(try trash(temporary.file("volumes")).isEmpty)
            #expect(try temporary.read("outside/folder/file") == "mine")
        }
    }

    @Test func `read-only files, pipes and odd names go`() async throws {
        try await withTemporaryDirectory("vol") { temporary in
            let volumes = LocalVolumes(directory: temporary.path)
            let path = try await volumes.ensure(key).path
            try Data("x".utf8).write(to: URL(fileURLWithPath: path + "/read-only"))
            #expect(chmod(path + "/read-only", 0) == 0)
            #expect(mkfifo(path + "/pipe", 0o600) == 0)
            let odd: [CChar] = (path + "/").utf8.map { CChar(bitPattern: $0) } + [-1, -2, 10, 32, 0]
            #expect(mkdir(odd, 0o755) == 0)
            try await volumes.delete(key)
            #expect(try trash(temporary.path).isEmpty)
        }
    }

    @Test(.enabled(if: Host.isRoot, "needs root to write into read-only directories"))
    func `read-only directories go`() async throws {
        try await withTemporaryDirectory("vol") { temporary in
            let volumes = LocalVolumes(directory: temporary.path)
            let path = try await volumes.ensure(key).path
            try makeDirectory(path + "/a/b")
            #expect(chmod(path + "/a/b", 0) == 0 && chmod(path + "/a", 0o500) == 0)
            try await volumes.delete(key)
            #expect(try trash(temporary.path).isEmpty)
        }
    }

    @Test(arguments: ["ensure", "list", "delete"])
    func `what a crash left in the trash goes with the next call`(call: String) async throws {
        try await withTemporaryDirectory("vol") { temporary in
            for name in ["shop.data.1", "shop.other.2", "stray"] {
                try makeDirectory(temporary.file(".trash/\(name)/data/folder"))
                try temporary.write("x", to: ".trash/\(name)/data/folder/file")
            }
            let volumes = LocalVolumes(directory: temporary.path)
            switch call {
            case "ensure": _ = try await volumes.ensure(key)
            case "list": #expect(try await volumes.list().isEmpty)
            default:
                try await volumes.delete(key)
                #expect(!exists(temporary.file(".trash/shop.data.1")), "the rest of this volume is waited for")
            }
            try await eventually("the trash is dealt with") { try trash(temporary.path).isEmpty }
            #expect(volumes.trashFailure == nil)
        }
    }

    @Test func `a removal that takes too long is continued`() async throws {
        try await withTemporaryDirectory("vol") { temporary in
            let path = try await LocalVolumes(directory: temporary.path).ensure(key).path
            try Data("x".utf8).write(to: URL(fileURLWithPath: path + "/file"))
            let hurried = LocalVolumes(directory: temporary.path, limits: .init(removalTime: .zero))
            let error = await #expect(throws: VolumeError.self) { try await hurried.delete(key) }
            #expect(error?.code == .deadlineExceeded)
            #expect(!exists(path))
            #expect(try trash(temporary.path).count == 1)
            try await eventually("the trash is dealt with") { hurried.trashFailure?.code == .deadlineExceeded }
            try await LocalVolumes(directory: temporary.path).delete(key)
            #expect(try trash(temporary.path).isEmpty)
        }
    }

    @Test(.enabled(if: Host.isRoot, "needs root to mount"), arguments: ["data", "data/inner"])
    func `what is mounted in a volume survives its deletion`(place: String) async throws {
        try await withTemporaryDirectory("vol") { temporary in
            try makeDirectory(temporary.file("disk"))
            try temporary.write(String(repeating: "x", count: 50_000), to: "disk/file")
            let volumes = LocalVolumes(directory: temporary.file("volumes"))
            _ = try await volumes.ensure(key)
            try makeDirectory(temporary.file("volumes/shop/data/\(place)"))
            // A bind mount of the same file system: the device number does not tell it apart.
            let target = temporary.file("volumes/shop/data/\(place)")
            try await Shell.run(["mount", "--bind", temporary.file("disk"), target]).checked()
            do {
                let used = try #require(try await volumes.usedBytes(key))
                #expect(place == "data" ? used >= 50_000 : used < 50_000)
                let error = await #expect(throws: VolumeError.self) { try await volumes.delete(key) }
                #expect(error?.errno == EBUSY)
                #expect(try temporary.read("disk/file").count == 50_000)
            } catch {
                try await unmountAll(temporary.path)
                throw error
            }
            try await unmountAll(temporary.path)
            try await volumes.delete(key)
            #expect(try trash(temporary.file("volumes")).isEmpty)
            #expect(try temporary.read("disk/file").count == 50_000)
        }
    }

    private func trash(_ directory: String) throws -> [String] {
        try FileManager.default.contentsOfDirectory(atPath: directory + "/.trash")
    }

    /// Mounts below `path`, wherever a rename took them.
    private func unmountAll(_ path: String) async throws {
        // A removal that is still under way may move one between a look and the unmounting.
        try await eventually("nothing is mounted any more") {
            let places = try self.mounts(below: path)
            for place in places { try await Shell.run(["umount", "-l", place]).checked() }
            return places.isEmpty
        }
    }

    private func mounts(below path: String) throws -> [String] {
        let lines = try String(contentsOfFile: "/proc/self/mountinfo", encoding: .utf8).split(separator: "\n")
        return lines.compactMap { line -> String? in
            let fields = line.split(separator: " ")
            guard fields.count > 4, fields[4].hasPrefix(path + "/") else { return nil }
            return String(fields[4])
        }
    }
}

@Suite struct UsageTests {
    let key = ObjectKey(name: "data")

    @Test func `blocks are counted, not lengths, and a file with two names once`() async throws {
        try await withTemporaryDirectory("vol") { temporary in
            let volumes = LocalVolumes(directory: temporary.path)
            let path = try await volumes.ensure(key).path
            try Data(repeating: 7, count: 200_000).write(to: URL(fileURLWithPath: path + "/file"))
            let once = try #require(try await volumes.usedBytes(key))
            #expect((200_000..<400_000).contains(once))
            #expect(Glibc.link(path + "/file", path + "/again") == 0)
            try Data().write(to: URL(fileURLWithPath: path + "/sparse"))
            #expect(truncate(path + "/sparse", 1 << 30) == 0)
            #expect(try await volumes.usedBytes(key) == once)
        }
    }

    @Test func `too many files, too deep a tree and too little time end the count`() async throws {
        try await withTemporaryDirectory("vol") { temporary in
            let volumes = LocalVolumes(directory: temporary.path, limits: .init(usageEntriesMax: 3))
            let path = try await volumes.ensure(key).path
            for name in ["a", "b", "c"] { try Data().write(to: URL(fileURLWithPath: "\(path)/\(name)")) }
            #expect(try await volumes.usedBytes(key) == 0)
            try Data().write(to: URL(fileURLWithPath: path + "/d"))
            await expectTooMuch(volumes)
            await expectTooMuch(LocalVolumes(directory: temporary.path, limits: .init(usageTime: .zero)))
            try makeDirectory(path + String(repeating: "/d2", count: Usage.depthMax + 1))
            await expectTooMuch(LocalVolumes(directory: temporary.path))
        }
    }

    private func expectTooMuch(_ volumes: LocalVolumes) async {
        let error = await #expect(throws: VolumeError.self) { try await volumes.usedBytes(key) }
        #expect(error?.code == .deadlineExceeded)
    }
}

@Suite struct VolumeErrorTests {
    @Test(arguments: [(ENOSPC, Reason.Code.noSpace), (EDQUOT, .noSpace), (EIO, .volumeFailed), (EXDEV, .volumeFailed)])
    func `a full disk has a code of its own`(number: Int32, code: Reason.Code) {
        let error = VolumeError.system("make", "/v/a", errno: number)
        #expect(error.reason.code == code)
        #expect(error.errno == number && error.path == "/v/a")
        #expect(error.message.contains("/v/a") && error.message.contains("\(number)"))
    }
}
