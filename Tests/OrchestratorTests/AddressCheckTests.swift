// SPDX-License-Identifier: Apache-2.0
import Model
import Store
import Testing

@testable import Orchestrator

@Suite struct AddressCheckTests {
    private static let ranges = AddressRanges.standard

    private static func address(_ text: String) -> IPv4Address { IPv4Address(text) ?? IPv4Address(value: 0) }

    private static func check(vips: [String] = []) -> AddressCheck {
        let node = NodeRow(
            id: "n1", name: "alpha", member: 1, address: "192.0.2.1", peerAddress: "192.0.2.1:4484", apiAddress: "",
            subnet: IPv4Subnet(address("10.210.1.0"), prefix: 24), cpuMillis: 1000, memoryBytes: 1 << 30, version: "1")
        let services = vips.enumerated().map { index, vip in
            ServiceRow(
                app: ObjectKey(namespace: "default", name: "app\(index)"), name: "web", replicas: 1, generation: 1,
                vip: address(vip), spec: ServiceSpec(name: "web", image: "web:1"))
        }
        return AddressCheck(nodes: [node], tasks: [], services: services, ranges: ranges)
    }

    @Test func `an address without a task is leaked, one that two have is doubled`() {
        let found = Self.check().findings(["n1": ["a": Self.address("10.210.1.2"), "b": Self.address("10.210.1.2")]])
        #expect(found.map(\.kind) == [.duplicate, .leaked, .leaked])
        #expect(found.allSatisfy { $0.address == Self.address("10.210.1.2") })
        #expect(found.last?.node == "alpha")
    }

    @Test func `services share no address and stay in their range`() {
        let found = Self.check(vips: ["10.211.0.1", "10.211.0.1", "10.9.0.1"]).findings(["n1": [:]])
        #expect(found.map(\.kind) == [.outside, .duplicate])
    }

    @Test func `a node that was not asked says nothing`() {
        #expect(Self.check(vips: ["10.211.0.1"]).findings([:]).isEmpty)
    }
}
