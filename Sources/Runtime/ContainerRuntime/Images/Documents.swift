// SPDX-License-Identifier: Apache-2.0
internal import FoundationEssentials
internal import Model

/// Reads manifests and configs that strangers wrote: every number in them is checked before it is used.
enum Documents {
    struct Config: Sendable {
        var config: ImageConfig
        var diffIDs: [String]
    }

    static func manifest(_ bytes: [UInt8], of image: String) throws(ImageError) -> Manifest {
        let manifest: Manifest
        do { manifest = try JSON.decode(Manifest.self, from: Data(bytes)) } catch {
            throw ImageError(
                .imageInvalid, "the manifest of \(image) cannot be understood",
                hint: "build it again with a current tool")
        }
        guard manifest.layers.count <= ImageLimits.layersMax else {
            throw ImageError(
                .imageInvalid,
                "\(image) has \(manifest.layers.count) layers; at most "
                    + "\(ImageLimits.layersMax) are accepted", hint: "squash the image")
        }
        guard manifest.config.size <= ImageLimits.configBytesMax else {
            throw ImageError(
                .imageInvalid,
                "the config of \(image) has \(manifest.config.size) bytes; at most "
                    + "\(ImageLimits.configBytesMax) are accepted")
        }
        for blob in [manifest.config] + manifest.layers {
            guard Digest.isValid(blob.digest), (0...ImageLimits.layerBytesMax).contains(blob.size) else {
                throw ImageError(
                    .imageInvalid,
                    "the manifest of \(image) has a blob with digest `\(blob.digest.prefix(80))` and "
                        + "\(blob.size) bytes", hint: "only sha256 digests and sizes up to 64 GiB are accepted")
            }
            guard !MediaType.isForeign(blob.mediaType) else {
                throw ImageError(
                    .imageInvalid, "\(image) has a layer its registry does not hold (\(blob.mediaType))",
                    hint: "push the image with its foreign layers")
            }
        }
        return manifest
    }

    static func config(
        _ bytes: [UInt8], layers: Int, platform: Platform, of image: String
    ) throws(ImageError) -> Config {
        struct Document: Decodable {
            struct Root: Decodable { var diffIds: [String] }
            var os: String?
            var architecture: String?
            var rootfs: Root
        }
        let document: Document
        let config: ImageConfig
        do {
            document = try JSON.decode(Document.self, from: Data(bytes))
            config = try ImageConfig(document: Data(bytes))
        } catch {
            throw ImageError(
                .imageInvalid, "the config of \(image) cannot be understood", hint: "is it a container image?")
        }
        let diffIDs = document.rootfs.diffIds
        guard diffIDs.count == layers, layers > 0, diffIDs.allSatisfy(Digest.isValid) else {
            throw ImageError(
                .imageInvalid, "\(image) has \(layers) layers but its config lists \(diffIDs.count)",
                hint: "the image is damaged; build and push it again")
        }
        let isRunnable =
            (document.os ?? platform.os) == platform.os
            && (document.architecture ?? platform.architecture) == platform.architecture
        guard isRunnable else {
            throw ImageError(
                .platformUnavailable,
                "\(image) is built for \(document.os ?? "?")/\(document.architecture ?? "?"); this "
                    + "node runs \(platform)", hint: "push an image for \(platform)")
        }
        return Config(config: config, diffIDs: diffIDs)
    }
}
