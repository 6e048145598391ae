// SPDX-License-Identifier: Apache-2.0

internal import Glibc

enum DiskStatus {
    static let noSpace = ENOSPC
    static let quota = EDQUOT
    static let notFound = ENOENT
}

/// A directory of the real file system. Calls block; keep them off the cooperative pool.
public final class POSIXLogDirectory: LogDirectory {
    public let path: String
    private let descriptor: Descriptor
    private let isReadOnly: Bool

    /// Opens the directory, making it (mode 0700) when absent; its parent must exist.
    public init(path: String) throws(DiskError) {
        self.path = path
        if mkdir(path, 0o700) != 0, errno != EEXIST {
            throw DiskError(operation: "mkdir", file: path, status: errno)
        }
        isReadOnly = false
        descriptor = try Descriptor("open", file: path) { Glibc.open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC) }
    }

    /// Opens an existing directory to look at it: whatever would change something fails.
    public init(reading path: String) throws(DiskError) {
        self.path = path
        isReadOnly = true
        descriptor = try Descriptor("open", file: path) { Glibc.open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC) }
    }

    public func list() throws(DiskError) -> [String] {
        guard let stream = opendir(path) else { throw DiskError(operation: "opendir", file: path, status: errno) }
        defer { closedir(stream) }
        var names: [String] = []
        while true {
            errno = 0
            guard let entry = readdir(stream) else {
                guard errno == 0 else { throw DiskError(operation: "readdir", file: path, status: errno) }
                return names
            }
            let name = withUnsafePointer(to: &entry.pointee.d_name) { pointer in
                pointer.withMemoryRebound(to: CChar.self, capacity: Int(NAME_MAX) + 1) { String(cString: $0) }
            }
            if name != ".", name != ".." { names.append(name) }
        }
    }

    public func open(_ name: String) throws(DiskError) -> any LogStorage {
        try file("open", name, isReadOnly ? O_RDONLY : O_RDWR)
    }

    public func create(_ name: String) throws(DiskError) -> any LogStorage {
        try checkWritable("create", name)
        return try file("create", name, O_RDWR | O_CREAT | O_TRUNC)
    }

    private func file(_ operation: String, _ name: String, _ flags: Int32) throws(DiskError) -> POSIXLogStorage {
        let opened = try Descriptor(operation, file: "\(path)/\(name)") { [descriptor] in
            openat(descriptor.number, name, flags | O_CLOEXEC, 0o600)
        }
        return POSIXLogStorage(descriptor: opened)
    }

    public func rename(_ name: String, to target: String) throws(DiskError) {
        try checkWritable("rename", name)
        try descriptor.retry("rename") { renameat($0, name, $0, target) }
    }

    public func remove(_ name: String) throws(DiskError) {
        try checkWritable("unlink", name)
        try descriptor.retry("unlink") { unlinkat($0, name, 0) }
    }

    public func sync() throws(DiskError) {
        try descriptor.sync("fsync") { fsync($0) }
    }

    public func freeBytes() throws(DiskError) -> Int {
        var status = statvfs()
        try withUnsafeMutablePointer(to: &status) { pointer throws(DiskError) in
            try descriptor.retry("fstatvfs") { fstatvfs($0, pointer) }
        }
        let (bytes, isTooMany) = UInt(status.f_bavail).multipliedReportingOverflow(by: UInt(status.f_frsize))
        return isTooMany ? .max : Int(clamping: bytes)
    }

    private func checkWritable(_ operation: String, _ name: String) throws(DiskError) {
        guard isReadOnly else { return }
        throw DiskError(operation: operation, file: "\(path)/\(name)", status: EROFS)
    }
}

final class POSIXLogStorage: LogStorage {
    private let descriptor: Descriptor

    init(descriptor: Descriptor) {
        self.descriptor = descriptor
    }

    func size() throws(DiskError) -> Int {
        var status = stat()
        try withUnsafeMutablePointer(to: &status) { pointer throws(DiskError) in
            try descriptor.retry("fstat") { fstat($0, pointer) }
        }
        return Int(status.st_size)
    }

    func read(at offset: Int, count: Int) throws(DiskError) -> [UInt8] {
        var failure: Int32 = 0
        let bytes = [UInt8](unsafeUninitializedCapacity: count) { buffer, filled in
            while filled < count {
                let rest = UnsafeMutableRawBufferPointer(rebasing: UnsafeMutableRawBufferPointer(buffer)[filled...])
                let got = pread(descriptor.number, rest.baseAddress, rest.count, off_t(offset + filled))
                if got == 0 { return }
                if got < 0 {
                    if errno == EINTR { continue }
                    failure = errno
                    return
                }
                filled += got
            }
        }
        guard failure == 0 else { throw DiskError(operation: "read", file: descriptor.file, status: failure) }
        return bytes
    }

    func write(_ bytes: [UInt8], at offset: Int) throws(DiskError) {
        var failure: Int32 = 0
        bytes.withUnsafeBytes { buffer in
            var done = 0
            while done < buffer.count {
                let rest = UnsafeRawBufferPointer(rebasing: buffer[done...])
                let put = pwrite(descriptor.number, rest.baseAddress, rest.count, off_t(offset + done))
                if put < 0 {
                    if errno == EINTR { continue }
                    failure = errno
                    return
                }
                done += put
            }
        }
        guard failure == 0 else { throw DiskError(operation: "write", file: descriptor.file, status: failure) }
    }

    /// Reserves the blocks instead of writing zeroes, so that it costs next to nothing.
    func allocate(_ count: Int) throws(DiskError) {
        guard count > 0 else { return }
        var status = EINTR
        while status == EINTR { status = posix_fallocate(descriptor.number, 0, off_t(count)) }
        guard status == 0 else { throw DiskError(operation: "allocate", file: descriptor.file, status: status) }
    }

    func sync() throws(DiskError) {
        try descriptor.sync("fdatasync") { fdatasync($0) }
    }
}

/// An open file, closed when released. Immutable, and the kernel serialises calls on it: safe to share.
final class Descriptor: Sendable {
    let number: Int32
    let file: String

    init(_ operation: String, file: String, open: () -> Int32) throws(DiskError) {
        number = open()
        self.file = file
        guard number >= 0 else { throw DiskError(operation: operation, file: file, status: errno) }
    }

    deinit {
        if number >= 0 { close(number) }
    }

    func retry(_ operation: String, _ call: (Int32) -> Int32) throws(DiskError) {
        while call(number) != 0 {
            if errno != EINTR { throw DiskError(operation: operation, file: file, status: errno) }
        }
    }

    /// Once, whatever it answers: a second try may report success for pages the kernel has dropped.
    func sync(_ operation: String, _ call: (Int32) -> Int32) throws(DiskError) {
        if call(number) != 0 { throw DiskError(operation: operation, file: file, status: errno) }
    }
}
