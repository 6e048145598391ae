// SPDX-License-Identifier: Apache-2.0
import Model
import Store
import Testing

/// Published ports: one owner each, whatever services of an app do among themselves.
@Suite struct ApplyPortTests {
    typealias F = StateFixture

    @Test func `a port of another app is refused and changes nothing`() async throws {
        let fixture = try F()
        try fixture.apply(F.put("a", [F.service("a", ports: [F.port(8080)])]))
        let problem = try fixture.refusal(F.put("b", [F.service("b", ports: [F.port(8080)])]))
        #expect(problem?.code == .portConflict)
        #expect(problem?.detail == "port 8080/tcp is published by app `a`")
        #expect(try await fixture.dump().contains { $0.contains("\"b\"") } == false)
    }

    @Test func `two services of one app may swap their ports`() throws {
        let fixture = try F()
        try fixture.apply(
            F.put("x", [F.service("a", ports: [F.port(8080)]), F.service("b", ports: [F.port(8081)])]))
        try fixture.apply(
            F.put("x", [F.service("a", ports: [F.port(8081)]), F.service("b", ports: [F.port(8080)])]))
        #expect(try fixture.ports() == ["x/b 8080", "x/a 8081"])
    }

    @Test func `a renamed service takes over the port of the one it replaces`() throws {
        let fixture = try F()
        try fixture.apply(F.put("x", [F.service("old", ports: [F.port(8080)])]))
        try fixture.apply(F.put("x", [F.service("new", ports: [F.port(8080)])]))
        #expect(try fixture.ports() == ["x/new 8080"])
    }

    @Test func `a port chosen for one service never takes the one another service of the app names`() throws {
        let fixture = try F()
        try fixture.apply(
            F.put("x", [F.service("a", ports: [F.port(nil)]), F.service("b", ports: [F.port(30_000)])]))
        #expect(try fixture.ports() == ["x/b 30000", "x/a 30001"])
    }

    @Test func `a chosen port stays over deploys and is no change by itself`() throws {
        let fixture = try F()
        try fixture.apply(F.put("other", [F.service("other", ports: [F.port(30_000)])]))
        try fixture.apply(F.put("x", [F.service("x", ports: [F.port(nil)])]))
        try fixture.apply(.deleteApp(AppChange(app: ObjectKey(name: "other"))))
        try fixture.apply(.removeApp(AppChange(app: ObjectKey(name: "other"))))
        let again = try fixture.apply(F.put("x", [F.service("x", ports: [F.port(nil)])]))
        #expect(again.outcome == .done(.unchanged))
        try fixture.apply(F.put("x", [F.service("x", image: "web:2", ports: [F.port(nil)])]))
        #expect(try fixture.ports() == ["x/x 30001"])
    }

    @Test func `going back without a port somebody else took meanwhile still goes back`() throws {
        let fixture = try F()
        try fixture.apply(F.put("x", [F.service("x", ports: [F.port(8080), F.port(8082, 82)])]))
        try fixture.endRollout("x", .succeeded)
        try fixture.apply(F.put("x", [F.service("x", image: "web:2")]))
        try fixture.apply(F.put("y", [F.service("y", ports: [F.port(8080)])]))
        try fixture.fail("x")
        #expect(try fixture.ports() == ["y/y 8080", "x/x 8082"])
        #expect(try fixture.services("x").first?.spec.image == "web:1")
        #expect(try fixture.rollout("x")?.reason?.message.contains("8080/tcp") == true)
    }

    @Test func `a port of some nodes and the same one of all nodes do not go together`() throws {
        let fixture = try F()
        let ours = PortSpec(hostPort: 8080, containerPort: 80, mode: .host)
        try fixture.apply(F.put("a", [F.service("a", ports: [ours])]))
        let problem = try fixture.refusal(F.put("b", [F.service("b", ports: [F.port(8080)])]))
        #expect(problem?.code == .portConflict)
        #expect(problem?.detail == "port 8080/tcp is published by app `a`")
        // Whether both find nodes is for placement to say.
        try fixture.apply(F.put("c", [F.service("c", ports: [ours])]))
        try fixture.apply(F.put("d", [F.service("d", ports: [F.port(8081)])]))
        let other = PortSpec(hostPort: 8081, containerPort: 80, mode: .host)
        #expect(try fixture.refusal(F.put("c", [F.service("c", ports: [other])]))?.code == .portConflict)
        let twice = F.put(
            "e",
            [
                F.service("e", ports: [F.port(90)]),
                F.service("f", ports: [PortSpec(hostPort: 90, containerPort: 80, mode: .host)]),
            ])
        #expect(try fixture.refusal(twice)?.code == .invalidSpec)
        #expect(
            try fixture.state.read { try $0.hostPorts() }.map { "\($0.app) \($0.port.hostPort)" } == [
                "a 8080", "c 8080",
            ])
        // None of them is chosen for another, and all are free once nobody has them.
        let first = PortSpec(hostPort: 30_000, containerPort: 80, mode: .host)
        try fixture.apply(F.put("a", [F.service("a", ports: [first])]))
        try fixture.apply(F.put("c", [F.service("c")]))
        try fixture.apply(F.put("b", [F.service("b", ports: [F.port(8080), F.port(nil, 81)])]))
        #expect(try fixture.ports() == ["b/b 8080", "d/d 8081", "b/b 30001"])
    }

    @Test func `a service that leaves gives its port back at once`() throws {
        let fixture = try F()
        try fixture.apply(F.put("x", [F.service("a"), F.service("b", replicas: 0, ports: [F.port(8080)])]))
        try fixture.endRollout("x", .succeeded)
        try fixture.apply(F.put("x", [F.service("a")]))
        #expect(try fixture.ports().isEmpty)
    }
}
