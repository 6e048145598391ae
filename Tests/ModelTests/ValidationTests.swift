// SPDX-License-Identifier: Apache-2.0
import Model
import Testing

@Suite struct ValidationTests {
    private let key = ObjectKey(name: "shop")

    private func refusal(of service: ServiceSpec) -> Problem? {
        do {
            _ = try Validation.app(AppSpec(key: key, services: [service]))
            return nil
        } catch { return error }
    }

    @Test(arguments: ["a", "web-1", "0", String(repeating: "x", count: 40)])
    func `a DNS label of at most 40 characters is a name`(text: String) throws {
        try Validation.name(text, kind: "app")
    }

    @Test(arguments: ["", "-a", "a-", "Web", "a_b", "a.b", "a/b", "ü", "a\n", String(repeating: "x", count: 41)])
    func `anything else is refused as a name`(text: String) {
        let problem = #expect(throws: Problem.self) { try Validation.name(text, kind: "app") }
        #expect(problem?.code == .invalidName)
        #expect(problem?.hint != nil)
        #expect(problem?.detail.contains("\n") == false)
    }

    @Test func `a config name may have slashes, dots and capitals but no spaces`() throws {
        try Validation.configName("Team/app_1.json")
        #expect(throws: Problem.self) { try Validation.configName("a b") }
        #expect(throws: Problem.self) { try Validation.configName("") }
        #expect(throws: Problem.self) { try Validation.configName(String(repeating: "a", count: 201)) }
    }

    @Test func `a config of more than 1 MiB is too large`() throws {
        try Validation.configData(String(repeating: "a", count: 1 << 20))
        let problem = #expect(throws: Problem.self) {
            try Validation.configData(String(repeating: "a", count: 1 << 20 + 1))
        }
        #expect(problem?.status == 413)
    }

    static let faults: [(String, @Sendable (inout ServiceSpec) -> Void)] = [
        ("name", { $0.name = "Web" }),
        ("image", { $0.image = "" }),
        ("image", { $0.image = "a b" }),
        ("image_digest", { $0.imageDigest = "sha256:12" }),
        ("replicas", { $0.replicas = -1 }),
        ("replicas", { $0.replicas = 1001 }),
        ("command", { $0.command = ["a\0b"] }),
        ("entrypoint", { $0.entrypoint = [""] }),
        ("environment", { $0.environment = ["A=B": "1"] }),
        ("environment", { $0.environment = ["": "1"] }),
        ("environment", { $0.environment = ["A": "\0"] }),
        ("labels", { $0.labels = ["a b": "1"] }),
        ("user", { $0.user = "a:b:c" }),
        ("user", { $0.user = "4294967296" }),
        ("working_directory", { $0.workingDirectory = "tmp" }),
        ("hostname", { $0.hostname = "a..b" }),
        ("mounts", { $0.mounts = [MountSpec(source: .volume("data"), target: "data")] }),
        ("mounts", { $0.mounts = [MountSpec(source: .volume("data"), target: "/a/../b")] }),
        ("mounts", { $0.mounts = [MountSpec(source: .volume("Data"), target: "/data")] }),
        ("mounts", { $0.mounts = [MountSpec(source: .bind("data"), target: "/data")] }),
        ("mounts", { $0.mounts = [MountSpec(source: .tmpfs(sizeBytes: 1), target: "/t")] }),
        ("mounts", { $0.mounts = [MountSpec(source: .tmpfs(sizeBytes: nil), target: "/")] }),
        (
            "mounts",
            {
                $0.mounts = [
                    MountSpec(source: .volume("a"), target: "/data"), MountSpec(source: .volume("b"), target: "/data/"),
                ]
            }
        ),
        ("ports", { $0.ports = [PortSpec(hostPort: 0, containerPort: 80)] }),
        ("ports", { $0.ports = [PortSpec(hostPort: nil, containerPort: 0)] }),
        (
            "ports",
            { $0.ports = [PortSpec(hostPort: 80, containerPort: 80), PortSpec(hostPort: 80, containerPort: 81)] }
        ),
        ("resources.cpu_millis", { $0.resources.cpuMillis = 9 }),
        ("resources.memory_bytes", { $0.resources.memoryBytes = 4 << 20 - 1 }),
        ("resources.pids_max", { $0.resources.pidsMax = 0 }),
        ("capabilities_add", { $0.capabilitiesAdd = ["FLY"] }),
        ("capabilities_drop", { $0.capabilitiesDrop = [""] }),
        ("stop_signal", { $0.stopSignal = "SIGNOT" }),
        ("stop_timeout_milliseconds", { $0.stopTimeoutMilliseconds = 3_600_001 }),
    ]

    @Test(arguments: faults.indices)
    func `a fault of a service is refused with its field`(index: Int) {
        let (field, change) = Self.faults[index]
        var service = ServiceSpec(name: "web", image: "nginx")
        #expect(refusal(of: service) == nil)
        change(&service)
        let problem = refusal(of: service)
        #expect(problem?.code == .invalidSpec)
        #expect(problem?.detail.contains("services.\(service.name).\(field): ") == true, "\(problem?.detail ?? "-")")
    }

    @Test func `all faults are told at once`() {
        var service = ServiceSpec(name: "web", image: "", replicas: 2000)
        service.stopSignal = "NOPE"
        let detail = refusal(of: service)?.detail ?? ""
        for words in ["image:", "replicas: 2000", "stop_signal: `NOPE`"] { #expect(detail.contains(words)) }
    }

    @Test func `tcp and udp may publish the same number`() {
        var service = ServiceSpec(name: "dns", image: "coredns")
        service.ports = [
            PortSpec(hostPort: 53, containerPort: 53), PortSpec(hostPort: 53, containerPort: 53, protocol: .udp),
        ]
        #expect(refusal(of: service) == nil)
    }

    @Test func `two services of an app cannot publish one port`() {
        let port = PortSpec(hostPort: 80, containerPort: 80)
        let problem = #expect(throws: Problem.self) {
            try Validation.app(
                AppSpec(
                    key: key,
                    services: [
                        ServiceSpec(name: "a", image: "x", ports: [port]),
                        ServiceSpec(name: "b", image: "x", ports: [port]),
                    ]))
        }
        #expect(problem?.detail.contains("`a` and `b` both publish 80/tcp") == true)
    }

    @Test func `an app has 1 to 100 services with names of their own`() {
        #expect(throws: Problem.self) { try Validation.app(AppSpec(key: key, services: [])) }
        let many = (0..<101).map { ServiceSpec(name: "s\($0)", image: "x") }
        #expect(throws: Problem.self) { try Validation.app(AppSpec(key: key, services: many)) }
        let same = [ServiceSpec(name: "a", image: "x"), ServiceSpec(name: "a", image: "y")]
        let problem = #expect(throws: Problem.self) { try Validation.app(AppSpec(key: key, services: same)) }
        #expect(problem?.detail.contains("two named `a`") == true)
    }

    @Test func `spellings are made one`() throws {
        var service = ServiceSpec(name: "web", image: "nginx")
        service.capabilitiesAdd = ["net_admin", "CAP_CHOWN", "cap_net_admin"]
        service.capabilitiesDrop = ["all"]
        service.stopSignal = "quit"
        service.workingDirectory = "/srv/"
        service.mounts = [MountSpec(source: .volume("data"), target: "/data/")]
        service.resources = Resources(cpuMillis: 0, memoryBytes: 0)
        let result = try Validation.service(service)
        #expect(result.capabilitiesAdd == ["CAP_CHOWN", "CAP_NET_ADMIN"])
        #expect(result.capabilitiesDrop == ["ALL"])
        #expect(result.stopSignal == "SIGQUIT")
        #expect(result.workingDirectory == "/srv")
        #expect(result.mounts.first?.target == "/data")
        #expect(result.resources == Resources())
        #expect(try Validation.service(result) == result)
    }

    @Test(arguments: [("15", "SIGTERM"), ("term", "SIGTERM"), ("SIGRTMIN+3", "SIGRTMIN+3"), ("9", "SIGKILL")])
    func `signals are known by name and number`(text: String, name: String) {
        #expect(SignalName.normalised(text) == name)
    }

    @Test(arguments: ["", "0", "64", "SIG", "SIGRTMIN+31", "SIGRTMIN-1", "TERM "])
    func `other words are no signals`(text: String) {
        #expect(SignalName.normalised(text) == nil)
    }
}
