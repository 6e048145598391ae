// SPDX-License-Identifier: Apache-2.0
internal import CNetlink
internal import Glibc
public import Model

/// Why the node's network could not be brought to the state that was asked for.
public struct NetworkError: ReasonError, Hashable {
    public enum Code: String, Sendable {
        case alreadyExists, notFound, notPermitted, busy, unsupported, invalid, exhausted, overlap, timedOut, kernel
    }

    public var code: Code
    /// Which object, what failed.
    public var message: String
    public var hint: String?
    /// errno as the kernel gave it; 0 when it refused nothing itself. Callers decide idempotence on this, not on text.
    public var errno: Int32

    public init(_ code: Code, _ message: String, hint: String? = nil, errno: Int32 = 0) {
        self.code = code
        self.message = message
        self.hint = hint
        self.errno = errno
    }

    public var reason: Reason { Reason(.networkFailed, message, hint: hint) }
}

extension NetworkError {
    /// A refused netlink request.
    /// - Parameters:
    ///   - status: negative `NLE_*` as libnl returned it.
    ///   - errno: as the kernel sent it, 0 when libnl refused before asking.
    ///   - text: the kernel's own words, may be empty.
    static func netlink(_ what: String, status: Int32, errno: Int32, text: String) -> Self {
        let said =
            if !text.isEmpty { text } else if errno != 0 { words(errno) } else { String(cString: nl_geterror(status)) }
        let (code, hint) = errno == 0 ? meaning(status: -status) : meaning(errno: errno)
        return Self(code, "\(what): \(said)", hint: hint, errno: errno)
    }

    /// A refused system call.
    static func system(_ what: String, errno: Int32) -> Self {
        let (code, hint) = meaning(errno: errno)
        return Self(code, "\(what): \(words(errno))", hint: hint, errno: errno)
    }

    private static func words(_ errno: Int32) -> String { strerror(errno).map { String(cString: $0) } ?? "\(errno)" }

    private static let needsRoot = "the daemon needs root (CAP_NET_ADMIN and CAP_SYS_ADMIN)"

    static func meaning(errno: Int32) -> (Code, String?) {
        switch errno {
        case EEXIST: (.alreadyExists, nil)
        case ENOENT, ESRCH, ENODEV, EADDRNOTAVAIL: (.notFound, nil)
        case EPERM, EACCES: (.notPermitted, needsRoot)
        case EBUSY, EADDRINUSE: (.busy, nil)
        case EOPNOTSUPP, EAFNOSUPPORT, EPROTONOSUPPORT:
            (.unsupported, "this kernel lacks a feature: veth, nf_tables and conntrack are needed")
        case EINVAL, ERANGE: (.invalid, nil)
        case ENOMEM, ENOBUFS, ENFILE, EMFILE, ENOSPC:
            (.exhausted, "free memory or raise the limit of open files, then try again")
        case EAGAIN, ETIMEDOUT: (.timedOut, "the kernel did not answer in time; it is tried again")
        default: (.kernel, nil)
        }
    }

    /// The same for what libnl finds by itself; `status` is positive.
    static func meaning(status: Int32) -> (Code, String?) {
        switch status {
        case NLE_EXIST: (.alreadyExists, nil)
        case NLE_OBJ_NOTFOUND, NLE_NODEV, NLE_NOADDR: (.notFound, nil)
        case NLE_PERM, NLE_NOACCESS: (.notPermitted, needsRoot)
        case NLE_BUSY: (.busy, nil)
        case NLE_OPNOTSUPP, NLE_AF_NOSUPPORT, NLE_MSGTYPE_NOSUPPORT: meaning(errno: EOPNOTSUPP)
        case NLE_INVAL, NLE_RANGE, NLE_MISSING_ATTR, NLE_AF_MISMATCH, NLE_PARSE_ERR: (.invalid, nil)
        case NLE_NOMEM: meaning(errno: ENOMEM)
        case NLE_AGAIN: meaning(errno: ETIMEDOUT)
        default: (.kernel, nil)
        }
    }
}
