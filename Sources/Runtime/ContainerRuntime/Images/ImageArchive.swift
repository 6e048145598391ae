// SPDX-License-Identifier: Apache-2.0
internal import Crypto
internal import FoundationEssentials
internal import Model

/// What an OCI-layout or docker-archive tar offers, in one shape. Blocking.
struct ImageArchive: Sendable {
    /// One blob and where its bytes are.
    struct Blob: Sendable {
        var descriptor: Descriptor
        var source: Source
    }

    enum Source: Sendable {
        case entry(TarArchive.Entry)
        /// Made here, for archives without manifests.
        case bytes([UInt8])
    }

    struct Image: Sendable {
        /// nil when the archive has none.
        var name: String?
        /// Index or manifest the name stands for.
        var target: Blob
        var manifest: Manifest
        var manifestBlob: Blob
        var config: Blob
        var layers: [Blob]
    }

    let tar: TarArchive
    let images: [Image]

    private struct LegacyImage: Decodable {
        var Config: String
        var RepoTags: [String]?
        var Layers: [String]
    }

    init(path: String, platform: Platform) throws(ImageError) {
        let tar = try TarArchive(path: path)
        self.tar = tar
        if tar.entries["index.json"] != nil, tar.entries["oci-layout"] != nil {
            images = try Self.layoutImages(tar, platform)
        } else if tar.entries["manifest.json"] != nil {
            images = try Self.legacyImages(tar)
        } else {
            throw TarArchive.invalid(path, "has neither index.json (OCI layout) nor manifest.json (docker save)")
        }
        guard !images.isEmpty else { throw TarArchive.invalid(path, "contains no image") }
    }

    // MARK: OCI layout

    private static func layoutImages(_ tar: TarArchive, _ platform: Platform) throws(ImageError) -> [Image] {
        let bytes = try tar.readAll(try tar.file("index.json"), bytesMax: ImageLimits.manifestBytesMax)
        let index = try decode(ManifestIndex.self, bytes, "index.json", tar)
        var images: [Image] = []
        for descriptor in index.manifests {
            let isImage = MediaType.isIndex(descriptor.mediaType) || MediaType.isManifest(descriptor.mediaType)
            guard isImage, descriptor.platform?.os != "unknown" else { continue }
            images.append(try layoutImage(tar, descriptor, platform))
        }
        return images
    }

    private static func layoutImage(
        _ tar: TarArchive, _ target: Descriptor, _ platform: Platform
    ) throws(ImageError) -> Image {
        let targetBlob = try blob(tar, target)
        var manifestBlob = targetBlob
        var depth = 0
        while MediaType.isIndex(manifestBlob.descriptor.mediaType) {
            let bytes = try document(tar, manifestBlob, bytesMax: ImageLimits.manifestBytesMax)
            let index = try decode(ManifestIndex.self, bytes, manifestBlob.descriptor.digest, tar)
            depth += 1
            guard depth <= 3, let chosen = platform.choose(from: index.manifests) else {
                throw ImageError(
                    .platformUnavailable,
                    "archive has no image for \(platform); it has "
                        + Platform.names(of: index.manifests).joined(separator: ", "),
                    hint: "save the image for \(platform)")
            }
            manifestBlob = try blob(tar, chosen)
        }
        let bytes = try document(tar, manifestBlob, bytesMax: ImageLimits.manifestBytesMax)
        let manifest = try decode(Manifest.self, bytes, manifestBlob.descriptor.digest, tar)
        var layers: [Blob] = []
        for layer in manifest.layers { layers.append(try blob(tar, layer)) }
        return Image(
            name: name(target.annotations), target: targetBlob, manifest: manifest, manifestBlob: manifestBlob,
            config: try blob(tar, manifest.config), layers: layers)
    }

    /// A bare tag (`latest`) is no name: it would become an image called like the tag.
    private static func name(_ annotations: [String: String]?) -> String? {
        if let name = annotations?["io.containerd.image.name"], !name.isEmpty { return name }
        guard let name = annotations?["org.opencontainers.image.ref.name"] else { return nil }
        return name.contains(where: { $0 == "/" || $0 == ":" }) ? name : nil
    }

    private static func blob(_ tar: TarArchive, _ descriptor: Descriptor) throws(ImageError) -> Blob {
        guard Digest.isValid(descriptor.digest) else {
            throw TarArchive.invalid(tar.path, "has a digest that is not sha256: `\(descriptor.digest.prefix(80))`")
        }
        let entry = try tar.file("blobs/sha256/\(descriptor.digest.dropFirst(7))")
        guard entry.size == descriptor.size else {
            throw ImageError(
                .digestMismatch,
                "blob \(descriptor.digest) of the archive has \(entry.size) bytes instead of "
                    + "\(descriptor.size)", hint: "the archive is damaged: save it again")
        }
        return Blob(descriptor: descriptor, source: .entry(entry))
    }

    private static func document(_ tar: TarArchive, _ blob: Blob, bytesMax: Int) throws(ImageError) -> [UInt8] {
        let bytes: [UInt8]
        switch blob.source {
        case .entry(let entry): bytes = try tar.readAll(entry, bytesMax: bytesMax)
        case .bytes(let own): bytes = own
        }
        guard Digest.of(bytes) == blob.descriptor.digest else {
            throw ImageError(
                .digestMismatch, "the archive's blob \(blob.descriptor.digest) has another content than its name says",
                hint: "the archive is damaged: save it again")
        }
        return bytes
    }

    // MARK: docker save

    private static func legacyImages(_ tar: TarArchive) throws(ImageError) -> [Image] {
        let bytes = try tar.readAll(try tar.file("manifest.json"), bytesMax: ImageLimits.manifestBytesMax)
        var images: [Image] = []
        for item in try decode([LegacyImage].self, bytes, "manifest.json", tar) {
            guard item.Layers.count <= ImageLimits.layersMax else {
                throw TarArchive.invalid(tar.path, "has an image of \(item.Layers.count) layers")
            }
            let config = try tar.readAll(try tar.file(item.Config), bytesMax: ImageLimits.configBytesMax)
            let configBlob = Blob(
                descriptor: Descriptor(
                    mediaType: MediaType.ociConfig, digest: Digest.of(config), size: Int64(config.count)),
                source: .bytes(config))
            var layers: [Blob] = []
            for name in item.Layers {
                let entry = try tar.file(name)
                let descriptor = Descriptor(
                    mediaType: try layerType(tar, entry), digest: try digest(tar, entry), size: entry.size)
                layers.append(Blob(descriptor: descriptor, source: .entry(entry)))
            }
            let manifest = Manifest(
                schemaVersion: 2, mediaType: MediaType.ociManifest, config: configBlob.descriptor,
                layers: layers.map(\.descriptor))
            let manifestBytes = try encode(manifest, tar)
            let target = Blob(
                descriptor: Descriptor(
                    mediaType: MediaType.ociManifest, digest: Digest.of(manifestBytes),
                    size: Int64(manifestBytes.count)),
                source: .bytes(manifestBytes))
            let names: [String?] = item.RepoTags?.isEmpty == false ? item.RepoTags?.map { $0 } ?? [] : [nil]
            for name in names {
                images.append(
                    Image(
                        name: name, target: target, manifest: manifest, manifestBlob: target, config: configBlob,
                        layers: layers))
            }
        }
        return images
    }

    private static func layerType(_ tar: TarArchive, _ entry: TarArchive.Entry) throws(ImageError) -> String {
        let head = try tar.read(entry, at: 0, count: 4)
        if head.starts(with: [0x1f, 0x8b]) { return MediaType.ociLayer + "+gzip" }
        if head.starts(with: [0x28, 0xb5, 0x2f, 0xfd]) { return MediaType.ociLayer + "+zstd" }
        return MediaType.ociLayer
    }

    private static func digest(_ tar: TarArchive, _ entry: TarArchive.Entry) throws(ImageError) -> String {
        var hash = SHA256()
        var offset: Int64 = 0
        while offset < entry.size {
            let bytes = try tar.read(entry, at: offset, count: 1 << 20)
            hash.update(data: bytes)
            offset += Int64(bytes.count)
        }
        return Digest.text(hash.finalize())
    }

    // MARK: JSON

    private static func decode<Value: Decodable>(
        _ type: Value.Type, _ bytes: [UInt8], _ name: String, _ tar: TarArchive
    ) throws(ImageError) -> Value {
        do { return try JSON.decode(type, from: Data(bytes)) } catch {
            throw TarArchive.invalid(tar.path, "has a `\(name)` that cannot be understood")
        }
    }

    /// OCI documents have camelCase keys, so not through `Model.JSON`.
    private static func encode(_ manifest: Manifest, _ tar: TarArchive) throws(ImageError) -> [UInt8] {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        do { return Array(try encoder.encode(manifest)) } catch {
            throw TarArchive.invalid(tar.path, "gives no manifest: \(error)")
        }
    }
}
