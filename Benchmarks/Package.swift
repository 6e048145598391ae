// swift-tools-version: 6.1
// SPDX-License-Identifier: Apache-2.0
import PackageDescription

// Apart from the product's package: drives the real binaries from outside, builds in seconds. The one room it drives by
// itself, because no command leads there alone, is the network's, seen through `Rooms`.
let strict: [SwiftSetting] = [
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("MemberImportVisibility"),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .unsafeFlags(["-warnings-as-errors"]),
]

let package = Package(
    name: "hivemind-bench",
    targets: [
        .executableTarget(
            name: "Bench", dependencies: ["Model", "ContainerNetwork"], path: "Sources/Bench",
            swiftSettings: [.unsafeFlags(["-warnings-as-errors"])]),
        .target(name: "Model", path: "Rooms/Model", swiftSettings: strict),
        .target(name: "CLinux", path: "Rooms/Network/CLinux"),
        .systemLibrary(name: "CNetlink", path: "Rooms/Network/CNetlink", pkgConfig: "libnl-route-3.0"),
        .systemLibrary(name: "CNftables", path: "Rooms/Network/CNftables", pkgConfig: "libnftables"),
        .target(
            name: "ContainerNetwork", dependencies: ["Model", "CLinux", "CNetlink", "CNftables"], path: "Rooms/Network",
            exclude: ["CLinux", "CNetlink", "CNftables"], swiftSettings: strict),
    ],
    swiftLanguageModes: [.v6]
)
