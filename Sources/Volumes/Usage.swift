// SPDX-License-Identifier: Apache-2.0
internal import Glibc
internal import Model

/// Sums up the blocks of what is below a directory, a file with several names once. Other mounts are not counted.
struct Usage {
    /// Directories inside each other; one descriptor is open for each.
    static let depthMax = 200
    private struct Inode: Hashable {
        var device: UInt
        var number: UInt
    }

    let key: ObjectKey
    let entriesMax: Int
    let deadline: Deadline
    private(set) var bytes: Int64 = 0
    private var entries = 0
    private var linked: Set<Inode> = []

    init(key: ObjectKey, entriesMax: Int, deadline: Deadline) {
        self.key = key
        self.entriesMax = entriesMax
        self.deadline = deadline
    }

    /// - Throws: `deadlineExceeded` past any of the bounds.
    mutating func add(_ root: borrowing Directory) throws(VolumeError) {
        try add(root, mount: try root.mount(), depth: 0)
    }

    private mutating func add(_ directory: borrowing Directory, mount: UInt64, depth: Int) throws(VolumeError) {
        guard depth <= Self.depthMax else { throw tooMuch("directories deeper than \(Self.depthMax)") }
        // A borrowed value cannot be captured: the descriptor and the path can.
        let raw = directory.raw
        let path = directory.path
        var folders: [[CChar]] = []
        try directory.forEachName { name throws(VolumeError) in
            entries += 1
            guard entries <= entriesMax else { throw tooMuch("more than \(entriesMax) files") }
            guard !deadline.isOver else { throw tooMuch("more files than can be counted in \(deadline.duration)") }
            var status = stat()
            guard fstatat(raw, name, &status, AT_SYMLINK_NOFOLLOW) == 0 else {
                if errno == ENOENT { return true }
                throw .system("look at", "\(path)/\(String(cString: name))", errno: errno)
            }
            if status.st_mode & S_IFMT == S_IFDIR {
                folders.append(Array(UnsafeBufferPointer(start: name, count: strlen(name) + 1)))
                return true
            }
            let inode = Inode(device: UInt(status.st_dev), number: UInt(status.st_ino))
            if status.st_nlink < 2 || linked.insert(inode).inserted { bytes += Int64(status.st_blocks) * 512 }
            return true
        }
        for folder in folders {
            guard let child = try directory.openEntry(folder), try child.mount() == mount else { continue }
            var status = stat()
            guard fstat(child.raw, &status) == 0 else { throw .system("look at", child.path, errno: errno) }
            bytes += Int64(status.st_blocks) * 512
            try add(child, mount: mount, depth: depth + 1)
        }
    }

    private func tooMuch(_ what: String) -> VolumeError {
        VolumeError(.deadlineExceeded, "volume \(key) has \(what)", hint: "measure it with `du` on its node")
    }
}
