// SPDX-License-Identifier: Apache-2.0
import Foundation
import Glibc
import Model
import TestSupport
import Testing

@testable import Volumes

@Suite struct LocalVolumesTests {
    let key = ObjectKey(namespace: "shop", name: "data")

    @Test func `local volumes keep what every driver promises`() async throws {
        try await withTemporaryDirectory("vol") { temporary in
            try await VolumeConformance(volumes: LocalVolumes(directory: temporary.file("volumes")), prefix: "v")
                .checkAll()
        }
    }

    @Test func `a volume is a directory with its record next to it`() async throws {
        try await withTemporaryDirectory("vol") { temporary in
            let before = umask(0o077)
            defer { umask(before) }
            let volumes = LocalVolumes(directory: temporary.file("deep/volumes/"))
            let state = try await volumes.ensure(key)
            #expect(state == VolumeState(path: temporary.file("deep/volumes/shop/data/data"), isSeeded: false))
            #expect(mode(state.path) == 0o755)
            #expect(mode(temporary.file("deep/volumes")) == 0o700)
            #expect(try temporary.read("deep/volumes/shop/data/volume.json").contains("\"seeded\":false"))
            try await volumes.markSeeded(key)
            #expect(try await LocalVolumes(directory: temporary.file("deep/volumes")).ensure(key).isSeeded)
        }
    }

    @Test func `the mode a task gave its volume stays`() async throws {
        try await withTemporaryDirectory("vol") { temporary in
            let volumes = LocalVolumes(directory: temporary.path)
            let path = try await volumes.ensure(key).path
            #expect(chmod(path, 0o700) == 0)
            _ = try await volumes.ensure(key)
            #expect(mode(path) == 0o700)
        }
    }

    @Test(arguments: ["shop", "shop/data", "shop/data/data"])
    func `a volume left half made is finished`(made: String) async throws {
        try await withTemporaryDirectory("vol") { temporary in
            try makeDirectory(temporary.file(made))
            if made.contains("/") { try temporary.write("{\"crea", to: "shop/data/volume.json.new") }
            chmod(temporary.file(made), 0o700)
            let volumes = LocalVolumes(directory: temporary.path)
            let state = try await volumes.ensure(key)
            #expect(!state.isSeeded)
            #expect(mode(state.path) == 0o755)
            #expect(!exists(temporary.file("shop/data/volume.json.new")))
            #expect(try await volumes.ensure(key) == state)
        }
    }

    @Test func `a volume without a record that holds files is never seeded over`() async throws {
        try await withTemporaryDirectory("vol") { temporary in
            try makeDirectory(temporary.file("shop/data/data"))
            try temporary.write("mine", to: "shop/data/data/file")
            #expect(try await LocalVolumes(directory: temporary.path).ensure(key).isSeeded)
        }
    }

    @Test func `a damaged record and lost data are told, not papered over`() async throws {
        try await withTemporaryDirectory("vol") { temporary in
            let volumes = LocalVolumes(directory: temporary.path)
            let path = try await volumes.ensure(key).path
            try await volumes.markSeeded(key)
            #expect(rmdir(path) == 0)
            let lost = await #expect(throws: VolumeError.self) { try await volumes.ensure(key) }
            #expect(lost?.path == path)
            try temporary.write("{", to: "shop/data/volume.json")
            let damaged = await #expect(throws: VolumeError.self) { try await volumes.ensure(key) }
            #expect(damaged?.message.contains("damaged") == true)
            #expect(damaged?.hint != nil)
        }
    }

    @Test func `only an existing volume can be marked as seeded`() async throws {
        try await withTemporaryDirectory("vol") { temporary in
            let volumes = LocalVolumes(directory: temporary.path)
            let error = await #expect(throws: VolumeError.self) { try await volumes.markSeeded(key) }
            #expect(error?.errno == ENOENT)
            #expect(!exists(temporary.file("shop")))
        }
    }

    @Test func `a link in the place of a volume leads nowhere`() async throws {
        try await withTemporaryDirectory("vol") { temporary in
            try makeDirectory(temporary.file("outside/data"))
            try temporary.write("mine", to: "outside/data/file")
            try makeDirectory(temporary.file("volumes/shop"))
            try link(temporary.file("volumes/shop/data"), to: temporary.file("outside"))
            let volumes = LocalVolumes(directory: temporary.file("volumes"))
            await #expect(throws: VolumeError.self) { try await volumes.ensure(key) }
            await #expect(throws: VolumeError.self) { try await volumes.usedBytes(key) }
            #expect(try await volumes.list().isEmpty)
            try await volumes.delete(key)
            #expect(!exists(temporary.file("volumes/shop")))
            #expect(try temporary.read("outside/data/file") == "mine")
        }
    }

    @Test func `the list leaves out what cannot be a volume`() async throws {
        try await withTemporaryDirectory("vol") { temporary in
            let volumes = LocalVolumes(directory: temporary.file("volumes"))
            #expect(try await volumes.list().isEmpty)
            let keys = [ObjectKey(name: "b"), ObjectKey(name: "a"), key]
            for key in keys { _ = try await volumes.ensure(key) }
            try makeDirectory(temporary.file("volumes/lost+found"))
            try makeDirectory(temporary.file("volumes/shop/UPPER"))
            try temporary.write("x", to: "volumes/shop/file")
            try temporary.write("x", to: "volumes/file")
            #expect(try await volumes.list() == [ObjectKey(name: "a"), ObjectKey(name: "b"), key])
        }
    }

    @Test func `fifty calls at once on one volume agree`() async throws {
        try await withTemporaryDirectory("vol") { temporary in
            let volumes = LocalVolumes(directory: temporary.path)
            let states = try await withThrowingTaskGroup(of: VolumeState.self) { group in
                for _ in 0..<50 { group.addTask { try await volumes.ensure(key) } }
                return try await group.reduce(into: Set<VolumeState>()) { $0.insert($1) }
            }
            #expect(states.count == 1)
        }
    }
}

func exists(_ path: String) -> Bool {
    var status = stat()
    return lstat(path, &status) == 0
}

func mode(_ path: String) -> mode_t? {
    var status = stat()
    return lstat(path, &status) == 0 ? status.st_mode & 0o7777 : nil
}

func makeDirectory(_ path: String) throws {
    try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
}

func link(_ path: String, to target: String) throws {
    try FileManager.default.createSymbolicLink(atPath: path, withDestinationPath: target)
}
