// SPDX-License-Identifier: Apache-2.0
internal import Glibc

/// The bytes of a request's body, from memory or from a file, readable from any offset (a redirect sends them again).
final class UploadSource {
    let count: Int64
    /// errno of a failed read, 0 when none failed.
    private(set) var failure: Int32 = 0
    private let bytes: [UInt8]
    private let descriptor: Int32
    private var offset: Int64 = 0

    init(bytes: [UInt8]) {
        self.bytes = bytes
        descriptor = -1
        count = Int64(bytes.count)
    }

    init(path: String) throws(HTTPError) {
        bytes = []
        descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else {
            let reason = String(cString: strerror(errno))
            throw HTTPError(code: .badRequest, message: "cannot read \(path): \(reason)", hint: "check path and rights")
        }
        var status = stat()
        guard fstat(descriptor, &status) == 0, status.st_mode & S_IFMT == S_IFREG else {
            close(descriptor)
            throw HTTPError(
                code: .badRequest, message: "\(path) is not a regular file", hint: "store it as a file first")
        }
        count = Int64(status.st_size)
    }

    deinit { if descriptor >= 0 { close(descriptor) } }

    func seek(to offset: Int64) { self.offset = min(max(0, offset), count) }

    /// Number of bytes read, 0 at the end, nil on failure.
    func read(into buffer: UnsafeMutableRawBufferPointer) -> Int? {
        let wanted = Int(min(Int64(buffer.count), count - offset))
        guard wanted > 0 else { return 0 }
        if descriptor < 0 {
            bytes.withUnsafeBytes { all in
                buffer.copyMemory(from: UnsafeRawBufferPointer(rebasing: all[Int(offset)..<Int(offset) + wanted]))
            }
            offset += Int64(wanted)
            return wanted
        }
        while true {
            let got = pread(descriptor, buffer.baseAddress, wanted, off_t(offset))
            if got < 0, errno == EINTR { continue }
            guard got > 0 else {
                failure = got < 0 ? errno : EIO
                return nil
            }
            offset += Int64(got)
            return got
        }
    }
}
