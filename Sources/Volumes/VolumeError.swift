// SPDX-License-Identifier: Apache-2.0
internal import Glibc
public import Model

/// Why a volume could not be made, measured or deleted.
public struct VolumeError: ReasonError, Hashable {
    /// `volumeFailed`, `noSpace` or `deadlineExceeded`.
    public var code: Reason.Code
    /// Which volume or file, what failed.
    public var message: String
    public var hint: String?
    /// errno as the kernel gave it; 0 when it refused nothing itself.
    public var errno: Int32
    /// The file or directory it is about; nil when it is about no file.
    public var path: String?

    public init(
        _ code: Reason.Code, _ message: String, hint: String? = nil, errno: Int32 = 0,
        path: String? = nil
    ) {
        self.code = code
        self.message = message
        self.hint = hint
        self.errno = errno
        self.path = path
    }

    public var reason: Reason { Reason(code, message, hint: hint) }

    /// A refused system call.
    /// - Parameter verb: what was tried, `open`.
    static func system(_ verb: String, _ path: String, errno: Int32) -> Self {
        let words = strerror(errno).map { String(cString: $0) } ?? "unknown error"
        let (code, hint) = meaning(errno: errno)
        return Self(
            code, "cannot \(verb) `\(path)`: \(words) (errno \(errno))", hint: hint, errno: errno, path: path)
    }

    static func mounted(_ path: String) -> Self {
        Self(
            .volumeFailed, "something is mounted at `\(path)`", hint: "unmount it, then delete the volume again",
            errno: EBUSY,
            path: path)
    }

    static func meaning(errno: Int32) -> (Reason.Code, String?) {
        switch errno {
        case ENOSPC: (.noSpace, "free space or inodes on the disk of the volumes")
        case EDQUOT: (.noSpace, "raise the quota of the disk of the volumes")
        case EPERM, EACCES:
            (.volumeFailed, "the daemon needs root, and the file must not be immutable (lsattr shows it)")
        case EROFS: (.volumeFailed, "mount the disk of the volumes writable")
        case EBUSY: (.volumeFailed, "unmount what is mounted there, then try again")
        case ELOOP, ENOTDIR: (.volumeFailed, "a directory is expected there: move away what took its place")
        case EMFILE, ENFILE, ENOMEM, EAGAIN: (.volumeFailed, "free memory or raise the limit of open files")
        case EIO: (.volumeFailed, "check the disk; the kernel log says more")
        default: (.volumeFailed, nil)
        }
    }
}
