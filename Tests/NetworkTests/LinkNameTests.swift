// SPDX-License-Identifier: Apache-2.0
import Glibc
import Model
import Testing

@testable import ContainerNetwork

@Suite struct `Names and errors` {
    @Test(arguments: ["a", "web-1", "abcdefgh2345"])
    func `a short plain id names a link`(id: String) throws {
        let name = try LinkName(TaskID(id))
        #expect("\(name)" == "hm" + id)
        #expect("\(name)".utf8.count <= 15)
        #expect(LinkName(link: "\(name)") == name)
    }

    @Test(arguments: ["", "abcdefgh23456", "a/b", "..", "A", "a b", "a\"", "ä", "a_b", "*"])
    func `an id that could be cut off, leave the folder or end a rule is refused`(id: String) {
        let error = #expect(throws: NetworkError.self) { try LinkName(TaskID(id)) }
        #expect(error?.code == .invalid)
        #expect(error?.hint != nil)
    }

    @Test(arguments: ["eth0", "lo", "hm", "hmABC", "docker0", "hm.vx"])
    func `links of others are not taken for a task's`(link: String) { #expect(LinkName(link: link) == nil) }

    @Test(
        arguments: [
            (EEXIST, .alreadyExists), (ENOENT, .notFound), (ESRCH, .notFound), (ENODEV, .notFound),
            (EPERM, .notPermitted), (EBUSY, .busy), (EADDRINUSE, .busy), (EOPNOTSUPP, .unsupported), (EINVAL, .invalid),
            (ENOMEM, .exhausted), (EAGAIN, .timedOut), (EIO, .kernel),
        ] as [(Int32, NetworkError.Code)])
    func `errno decides the code`(errno: Int32, code: NetworkError.Code) {
        let error = NetworkError.netlink("cannot add x", status: -1, errno: errno, text: "")
        #expect(error.code == code)
        #expect(error.errno == errno)
        #expect(error.reason.code == .networkFailed)
    }

    @Test func `the kernel's own words are preferred`() {
        let error = NetworkError.netlink("cannot add x", status: -7, errno: EINVAL, text: "Nexthop has invalid gateway")
        #expect(error.message == "cannot add x: Nexthop has invalid gateway")
    }

    @Test(
        arguments: [(6, .alreadyExists), (12, .notFound), (28, .notPermitted), (4, .timedOut)]
            as [(Int32, NetworkError.Code)])
    func `a refusal of libnl itself has a code too`(status: Int32, code: NetworkError.Code) {
        #expect(NetworkError.netlink("x", status: -status, errno: 0, text: "").code == code)
    }

    @Test func `missing privilege says what to do`() {
        #expect(NetworkError.system("x", errno: EPERM).hint?.contains("root") == true)
    }
}
