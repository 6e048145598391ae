// SPDX-License-Identifier: Apache-2.0

/// Pointer to a blob, as manifests and indexes hold it.
struct Descriptor: Hashable, Codable, Sendable {
    var mediaType: String
    var digest: String
    var size: Int64
    var platform: Platform?
    var annotations: [String: String]?
}

/// What an image was built for.
struct Platform: Hashable, Codable, Sendable, CustomStringConvertible {
    var os: String
    var architecture: String
    var variant: String?

    var description: String { "\(os)/\(architecture)\(variant.map { "/" + $0 } ?? "")" }

    static var current: Platform {
        #if arch(arm64)
            Platform(os: "linux", architecture: "arm64", variant: "v8")
        #else
            Platform(os: "linux", architecture: "amd64", variant: nil)
        #endif
    }

    /// Which manifest of an index fits best: the own variant, then none named. Entries that are no images
    /// (attestations, `unknown/unknown`) never fit.
    func choose(from manifests: [Descriptor]) -> Descriptor? {
        let own = manifests.filter { $0.platform?.os == os && $0.platform?.architecture == architecture }
        let defaults: [String?] = architecture == "amd64" ? [nil, "v1"] : [variant, nil]
        for wanted in defaults {
            if let found = own.first(where: { ($0.platform?.variant ?? "") == (wanted ?? "") }) { return found }
        }
        return nil
    }

    /// Names for the error when nothing fits.
    static func names(of manifests: [Descriptor]) -> [String] {
        Set(manifests.compactMap { $0.platform }.filter { $0.os != "unknown" }.map(\.description)).sorted()
    }
}

/// An image for one platform.
struct Manifest: Codable, Sendable {
    var schemaVersion: Int
    var mediaType: String?
    var config: Descriptor
    var layers: [Descriptor]
}

/// The images of all platforms behind one name.
struct ManifestIndex: Codable, Sendable {
    var schemaVersion: Int
    var mediaType: String?
    var manifests: [Descriptor]
}

enum MediaType {
    static let ociIndex = "application/vnd.oci.image.index.v1+json"
    static let ociManifest = "application/vnd.oci.image.manifest.v1+json"
    static let ociConfig = "application/vnd.oci.image.config.v1+json"
    static let ociLayer = "application/vnd.oci.image.layer.v1.tar"
    static let dockerIndex = "application/vnd.docker.distribution.manifest.list.v2+json"
    static let dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
    static let manifests = [ociIndex, ociManifest, dockerIndex, dockerManifest]

    static func isIndex(_ type: String) -> Bool { type == ociIndex || type == dockerIndex }
    static func isManifest(_ type: String) -> Bool { type == ociManifest || type == dockerManifest }
    /// Layers that a registry may not hand out; their URLs lead elsewhere.
    static func isForeign(_ type: String) -> Bool { type.contains("foreign") || type.contains("nondistributable") }
}

/// Sizes above which a registry's or archive's answer is refused.
enum ImageLimits {
    static let manifestBytesMax = 4 << 20
    static let configBytesMax = 8 << 20
    static let layersMax = 256
    static let layerBytesMax: Int64 = 64 << 30
}
