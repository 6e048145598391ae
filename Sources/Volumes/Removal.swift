// SPDX-License-Identifier: Apache-2.0
internal import Glibc
internal import Model

/// Removes what lies in the trash.
///
/// Symlinks are removed, never followed; a mount point ends the removal. Several removals of one tree may run side by
/// side: what is gone already is no error. Descriptors and stack are bounded: a directory deeper than `depthMax` moves
/// up into the trash and is removed from there.
struct Removal {
    static let depthMax = 64
    /// Listings of one directory before giving up on somebody who still writes into it.
    private static let passesMax = 8

    let deadline: Deadline
    private var movedUp: [String] = []

    init(deadline: Deadline) { self.deadline = deadline }

    /// - Throws: `deadlineExceeded` with the rest still in the trash; `volumeFailed` at a mount point.
    mutating func remove(_ name: String, in trash: borrowing Directory) throws(VolumeError) {
        let mount = try trash.mount()
        // The family of a volume's entries shares the part before the last dot.
        let family = name.lastIndex(of: ".").map { String(name[..<$0]) } ?? name
        var waiting = [name]
        while let next = waiting.popLast() {
            movedUp = []
            try removeEntry(next, trash, trash, mount: mount, depth: 0, family: family)
            waiting += movedUp
        }
    }

    private mutating func removeEntry(
        _ name: UnsafePointer<CChar>, _ parent: borrowing Directory, _ trash: borrowing Directory, mount: UInt64,
        depth: Int, family: String
    ) throws(VolumeError) {
        if deadline.isOver {
            throw VolumeError(
                .deadlineExceeded, "removing `\(parent.path)` took longer than \(deadline.duration)",
                hint: "it is continued with the next change of a volume", path: parent.path)
        }
        if unlinkat(parent.raw, name, 0) == 0 || errno == ENOENT { return }
        // EISDIR on Linux, EPERM by POSIX; a file that refuses fails again below as what it is.
        let refusal = errno
        guard let directory = try parent.openEntry(name) else {
            if access(parent, name) { throw .system("remove", parent.entryPath(name), errno: refusal) }
            return
        }
        guard try directory.mount() == mount else { throw .mounted(directory.path) }
        if depth >= Self.depthMax { return try moveUp(name, parent, trash, family: family) }
        for pass in 1...Self.passesMax {
            try directory.forEachName { child throws(VolumeError) in
                try removeEntry(child, directory, trash, mount: mount, depth: depth + 1, family: family)
                return true
            }
            if unlinkat(parent.raw, name, AT_REMOVEDIR) == 0 || errno == ENOENT { return }
            let isLast = pass == Self.passesMax || ![ENOTEMPTY, EEXIST].contains(errno)
            // Parts of it wait in the trash only when moved, never below it: not empty means somebody writes.
            if isLast { throw .system("remove", directory.path, errno: errno) }
        }
    }

    private mutating func moveUp(
        _ name: UnsafePointer<CChar>, _ parent: borrowing Directory, _ trash: borrowing Directory, family: String
    ) throws(VolumeError) {
        let target = "\(family).\(Trash.unique())"
        if renameat(parent.raw, name, trash.raw, target) == 0 {
            movedUp.append(target)
        } else if errno != ENOENT {
            throw .system("move", parent.entryPath(name), errno: errno)
        }
    }

    private func access(_ parent: borrowing Directory, _ name: UnsafePointer<CChar>) -> Bool {
        var status = stat()
        return fstatat(parent.raw, name, &status, AT_SYMLINK_NOFOLLOW) == 0
    }
}
