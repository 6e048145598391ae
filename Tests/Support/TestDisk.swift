// SPDX-License-Identifier: Apache-2.0
internal import Foundation
internal import Glibc

/// A small ext4 disk of its own: a file, mounted as a loop device. It can be filled, and its power can be cut.
public struct TestDisk: Sendable {
    /// Images can be made and mounted here. Reason when false: `needs`.
    public static let isAvailable =
        Host.isRoot && Host.program("mkfs.ext4") != nil && access("/dev/loop-control", F_OK) == 0
    public static let needs = "needs root, loop devices and mkfs.ext4 (scripts/setup test)"

    /// Where it is mounted.
    public let path: String
    public let image: String

    /// Made sparse: only what is written takes room.
    public init(mounting image: String, at path: String, mebibytes: Int) async throws {
        self.image = image
        self.path = path
        try await Shell.run(["truncate", "--size=\(mebibytes)M", image]).checked()
        try await Shell.run(["mkfs.ext4", "-q", "-F", "-m", "0", image]).checked()
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
        try await mount()
    }

    /// The file system syncs by itself only every five minutes: what a program did not sync is surely not on the disk.
    public func mount() async throws {
        try await Shell.run(["mount", "-o", "loop,commit=300,nodelalloc", image, path]).checked()
    }

    /// Unmounts, and with it goes the loop device.
    public func unmount() async throws {
        try await eventually("\(path) is unmounted", within: .seconds(10)) {
            try await Shell.run(["umount", path]).checked()
            return true
        }
    }

    /// Leaves `bytes` free; none when it is 0.
    public func fill(leaving bytes: Int64) async throws {
        var free = statvfs()
        guard statvfs(path, &free) == 0 else { throw TestFailure("cannot stat \(path)") }
        let size = Int64(free.f_bavail) * Int64(free.f_frsize) - max(bytes, 4 << 20)
        if size > 0 { try await Shell.run(["fallocate", "--length=\(size)", filling]).checked() }
        // The last of it goes byte by byte: others write, too, and how much a file takes beside its content varies.
        if bytes == 0 { _ = try await Shell.run(["sh", "-c", "cat /dev/zero >>'\(filling).end'"]) }
    }

    public func free() async throws {
        try await Shell.run(["rm", "-f", filling, filling + ".end"]).checked()
    }

    private var filling: String { "\(path)/filling" }

    /// Takes what is on the disk at this moment. Nothing may be writing to it.
    public func copyImage() async throws {
        try await Shell.run(["cp", "--sparse=always", image, image + ".cut"]).checked()
    }

    /// Goes on with what `copyImage` took, as after a power cut. It must be unmounted.
    public func useCopy() async throws {
        try await Shell.run(["mv", image + ".cut", image]).checked()
        try await mount()
    }
}
