// swift-tools-version: 6.1
// SPDX-License-Identifier: Apache-2.0
import PackageDescription

// Defects to be found by the simulation, in builds of their own: `make planted-bugs`.
let planted: [SwiftSetting] =
    Context.environment["HIVEMIND_PLANTED_BUGS"] == nil ? [] : [.define("PLANTED_BUGS")]

let strict: [SwiftSetting] =
    planted + [
        .enableUpcomingFeature("ExistentialAny"),
        .enableUpcomingFeature("MemberImportVisibility"),
        .enableUpcomingFeature("InternalImportsByDefault"),
        .unsafeFlags(["-warnings-as-errors"]),
    ]

// With MemberImportVisibility the compiler takes `struct stat` for CoreFoundation's whenever a dependency loaded that first:
// whether a file compiles then depends on what was compiled before it. Modules that meet both do without.
let strictButMembers: [SwiftSetting] = [
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .unsafeFlags(["-warnings-as-errors"]),
]

// Generated code is not ours to restyle: it keeps the language mode, not the strict features.
let generated: [SwiftSetting] = []

let argumentParser = Target.Dependency.product(name: "ArgumentParser", package: "swift-argument-parser")
let certificates = Target.Dependency.product(name: "X509", package: "swift-certificates")
let crypto = Target.Dependency.product(name: "Crypto", package: "swift-crypto")
let grdb = Target.Dependency.product(name: "GRDB", package: "GRDB.swift")
let grpcCore = Target.Dependency.product(name: "GRPCCore", package: "grpc-swift-2")
let grpcProtobuf = Target.Dependency.product(name: "GRPCProtobuf", package: "grpc-swift-protobuf")
let grpcTransport = Target.Dependency.product(name: "GRPCNIOTransportHTTP2", package: "grpc-swift-nio-transport")
let hummingbird = Target.Dependency.product(name: "Hummingbird", package: "hummingbird")
let hummingbirdCore = Target.Dependency.product(name: "HummingbirdCore", package: "hummingbird")
let httpTypes = Target.Dependency.product(name: "HTTPTypes", package: "swift-http-types")
let lifecycle = Target.Dependency.product(name: "ServiceLifecycle", package: "swift-service-lifecycle")
let signals = Target.Dependency.product(name: "UnixSignals", package: "swift-service-lifecycle")
let logging = Target.Dependency.product(name: "Logging", package: "swift-log")
let nioCore = Target.Dependency.product(name: "NIOCore", package: "swift-nio")
let nioPosix = Target.Dependency.product(name: "NIOPosix", package: "swift-nio")
let nioSSL = Target.Dependency.product(name: "NIOSSL", package: "swift-nio-ssl")
let nioTLS = Target.Dependency.product(name: "NIOTLS", package: "swift-nio")
let protobuf = Target.Dependency.product(name: "SwiftProtobuf", package: "swift-protobuf")
let yams = Target.Dependency.product(name: "Yams", package: "Yams")

let package = Package(
    name: "hivemind",
    platforms: [.macOS(.v15)],
    products: [
        .executable(name: "hivemind", targets: ["CLI"]),
        .executable(name: "hivemind-log", targets: ["LogCapture"]),
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
        .package(url: "https://github.com/apple/swift-certificates", from: "1.21.1"),
        .package(url: "https://github.com/apple/swift-crypto", from: "4.5.2"),
        .package(url: "https://github.com/apple/swift-http-types", from: "1.8.0"),
        .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
        .package(url: "https://github.com/apple/swift-nio", from: "2.101.2"),
        .package(url: "https://github.com/apple/swift-nio-ssl", from: "2.37.6"),
        .package(url: "https://github.com/apple/swift-protobuf", from: "1.39.0"),
        .package(url: "https://github.com/groue/GRDB.swift", from: "7.10.0"),
        .package(url: "https://github.com/grpc/grpc-swift-2", from: "2.4.3"),
        .package(url: "https://github.com/grpc/grpc-swift-nio-transport", from: "2.9.2"),
        .package(url: "https://github.com/grpc/grpc-swift-protobuf", from: "2.4.1"),
        .package(url: "https://github.com/hummingbird-project/hummingbird", from: "2.28.1", traits: []),
        .package(url: "https://github.com/jpsim/Yams", from: "6.2.2"),
        .package(url: "https://github.com/swift-server/swift-service-lifecycle", from: "2.13.0"),
    ],
    targets: [
        // Values and pure rooms.
        .target(name: "Model", swiftSettings: strict),
        .target(name: "Raft", path: "Sources/Raft/Consensus", swiftSettings: strict),
        .target(
            name: "Store",
            dependencies: ["Model", "Raft", crypto, grdb],
            path: "Sources/Raft/Store",
            swiftSettings: strict
        ),
        .target(
            name: "Orchestrator",
            dependencies: ["Model", "Raft", "Store"],
            path: "Sources/Daemon/Orchestrator",
            swiftSettings: strict
        ),

        // Effect rooms.
        .target(name: "CCurl", path: "Sources/Runtime/CCurl", linkerSettings: [.linkedLibrary("dl")]),
        .target(name: "HTTPClient", dependencies: ["CCurl"], path: "Sources/Runtime/HTTPClient", swiftSettings: strict),
        .systemLibrary(
            name: "CSeccomp",
            path: "Sources/Runtime/CSeccomp",
            pkgConfig: "libseccomp",
            providers: [.apt(["libseccomp-dev"])]
        ),
        .target(
            name: "ContainerdAPI",
            dependencies: [protobuf, grpcCore, grpcProtobuf],
            path: "Sources/Runtime/ContainerdAPI",
            exclude: ["protos"],
            swiftSettings: generated
        ),
        .target(
            name: "ContainerRuntime",
            dependencies: [
                "Model", "ContainerdAPI", "CSeccomp", "HTTPClient", "CLinux", crypto, grpcCore, grpcProtobuf,
                grpcTransport,
                logging, nioCore, protobuf,
            ],
            path: "Sources/Runtime/ContainerRuntime",
            swiftSettings: strictButMembers
        ),
        .executableTarget(name: "LogCapture", path: "Sources/Runtime/LogCapture", swiftSettings: strict),
        .target(name: "CLinux", path: "Sources/Network/CLinux"),
        .systemLibrary(
            name: "CNetlink",
            path: "Sources/Network/CNetlink",
            pkgConfig: "libnl-route-3.0",
            providers: [.apt(["libnl-3-dev", "libnl-route-3-dev", "libnl-nf-3-dev"])]
        ),
        .systemLibrary(
            name: "CNftables",
            path: "Sources/Network/CNftables",
            pkgConfig: "libnftables",
            providers: [.apt(["libnftables-dev"])]
        ),
        .target(
            name: "ContainerNetwork",
            dependencies: ["Model", "CLinux", "CNetlink", "CNftables"],
            path: "Sources/Network",
            exclude: ["CLinux", "CNetlink", "CNftables"],
            swiftSettings: strict
        ),
        .target(name: "Volumes", dependencies: ["Model"], swiftSettings: strict),
        .target(name: "Discovery", dependencies: ["Model", nioCore, nioPosix], swiftSettings: strict),

        // Wiring and surfaces.
        .target(
            name: "Daemon",
            dependencies: [
                "Model", "Raft", "Store", "Orchestrator", "ContainerRuntime", "ContainerNetwork", "Volumes",
                "Discovery", "CLinux",
                certificates, crypto, hummingbird, hummingbirdCore, httpTypes, lifecycle, logging, nioCore, nioPosix,
                nioSSL, nioTLS, signals,
            ],
            path: "Sources/Daemon",
            exclude: ["Orchestrator"],
            swiftSettings: strictButMembers
        ),
        .executableTarget(
            name: "CLI",
            dependencies: ["Model", "HTTPClient", "Daemon", argumentParser, yams],
            swiftSettings: strict
        ),

        // Tests.
        .target(name: "TestSupport", dependencies: ["Model"], path: "Tests/Support", swiftSettings: strict),
        .executableTarget(
            name: "simulate",
            dependencies: ["Orchestrator", "Store", "Raft", "Model", "TestSupport"],
            path: "Tests/Simulation",
            swiftSettings: strict
        ),
        .testTarget(name: "ModelTests", dependencies: ["Model"], swiftSettings: strict),
        .testTarget(
            name: "RaftTests",
            dependencies: ["Raft", "TestSupport"],
            exclude: ["Scenarios"],
            swiftSettings: strict
        ),
        .testTarget(
            name: "StoreTests", dependencies: ["Store", "Raft", "Model", "TestSupport", grdb], swiftSettings: strict),
        .testTarget(
            name: "OrchestratorTests",
            dependencies: ["Orchestrator", "Store", "Raft", "Model", "TestSupport"],
            swiftSettings: strict
        ),
        .testTarget(
            name: "RuntimeTests",
            dependencies: [
                "ContainerRuntime", "ContainerdAPI", "HTTPClient", "Model", "TestSupport", grpcCore, logging, protobuf,
            ],
            swiftSettings: strict
        ),
        .testTarget(
            name: "NetworkTests", dependencies: ["ContainerNetwork", "Model", "TestSupport"], swiftSettings: strict),
        .testTarget(name: "VolumesTests", dependencies: ["Volumes", "Model", "TestSupport"], swiftSettings: strict),
        .testTarget(
            name: "DiscoveryTests",
            dependencies: ["Discovery", "Model", "TestSupport", nioCore, nioPosix],
            swiftSettings: strict
        ),
        .testTarget(
            name: "DaemonTests",
            dependencies: [
                "Daemon", "Store", "Orchestrator", "Model", "Raft", "TestSupport", lifecycle, logging, nioCore,
                nioPosix, nioSSL,
            ],
            swiftSettings: strictButMembers
        ),
        .testTarget(
            name: "CLITests",
            dependencies: ["CLI", "Daemon", "Store", "Raft", "Model", "TestSupport", argumentParser],
            exclude: ["Golden"],
            swiftSettings: strict
        ),
        .testTarget(
            name: "SimulationTests",
            dependencies: ["Orchestrator", "Store", "Raft", "Model", "TestSupport"],
            swiftSettings: strict
        ),
        .testTarget(name: "IntegrationTests", dependencies: ["Model", "TestSupport"], swiftSettings: strict),
        .testTarget(name: "TidyTests", dependencies: ["TestSupport"], swiftSettings: strict),
    ],
    swiftLanguageModes: [.v6]
)
