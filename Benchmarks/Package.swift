// swift-tools-version: 6.1
// SPDX-License-Identifier: Apache-2.0
import PackageDescription

// Apart from the product's package: drives the real binaries from outside, needs none of their libraries, builds in seconds.
let package = Package(
    name: "hivemind-bench",
    targets: [
        .executableTarget(name: "Bench", path: "Sources/Bench", swiftSettings: [.unsafeFlags(["-warnings-as-errors"])])
    ],
    swiftLanguageModes: [.v6]
)
