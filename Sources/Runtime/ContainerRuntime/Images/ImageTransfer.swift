// SPDX-License-Identifier: Apache-2.0
internal import ContainerdAPI
internal import CoreFoundation  // Either this or Glibc owns C structs, by the order files are compiled in.
internal import FoundationEssentials
internal import GRPCCore
internal import Glibc
internal import Model

/// How an image gets into containerd: blobs with the labels that keep them, snapshots, then the name, all under a
/// lease, so that a garbage collection in between takes nothing.
extension ImageStore {
    private static let layersAtOnce = 3

    private struct Parts: Sendable {
        var target: Descriptor
        /// nil when the target is the manifest itself.
        var index: (descriptor: Descriptor, bytes: [UInt8])?
        var manifestDescriptor: Descriptor
        var manifestBytes: [UInt8]
        var manifest: Manifest
        var configBytes: [UInt8]
    }

    // MARK: From a registry

    func fetch(_ reference: ImageReference, digest: String) async throws {
        let name = reference.description
        try await withLease {
            var fetched = try await registry.manifest(of: reference, key: digest)
            let target = fetched.descriptor
            var index: (Descriptor, [UInt8])?
            if MediaType.isIndex(target.mediaType) {
                let chosen = try choose(fetched.bytes, name)
                index = (target, fetched.bytes)
                fetched = try await registry.manifest(of: reference, key: chosen.digest)
            }
            guard MediaType.isManifest(fetched.descriptor.mediaType) else {
                throw ImageError(.imageInvalid, "\(name) is an index of indexes", hint: "push it as one index")
            }
            let manifest = try Documents.manifest(fetched.bytes, of: name)
            let config = try await registry.blob(
                manifest.config, of: reference, bytesMax: ImageLimits.configBytesMax)
            let parts = Parts(
                target: target, index: index, manifestDescriptor: fetched.descriptor, manifestBytes: fetched.bytes,
                manifest: manifest, configBytes: config)
            let registry = registry
            try await store(parts, as: reference, labels: [:]) { layer, sink in
                try await registry.blob(layer, of: reference) { bytes throws(ImageError) in
                    do { try await sink(bytes) } catch let error as ImageError { throw error } catch {
                        // containerd's own answer says why; this only ends the download.
                        throw ImageError(.runtimeUnavailable, "cannot store a layer of \(name): \(error)")
                    }
                }
            }
        }
    }

    private func choose(_ bytes: [UInt8], _ name: String) throws(ImageError) -> Descriptor {
        let index: ManifestIndex
        do { index = try JSON.decode(ManifestIndex.self, from: Data(bytes)) } catch {
            throw ImageError(.imageInvalid, "the index of \(name) cannot be understood", hint: "push the image again")
        }
        guard let chosen = platform.choose(from: index.manifests), Digest.isValid(chosen.digest) else {
            let names = Platform.names(of: index.manifests)
            throw ImageError(
                .platformUnavailable,
                "\(name) has no image for \(platform); it has "
                    + (names.isEmpty ? "none with a platform" : names.joined(separator: ", ")),
                hint: "push an image for \(platform)")
        }
        return chosen
    }

    // MARK: From an archive

    func store(_ image: ImageArchive.Image, from tar: TarArchive, as reference: ImageReference) async throws {
        try await withLease {
            let config = try await Self.bytes(of: image.config, tar, bytesMax: ImageLimits.configBytesMax)
            let manifest = try await Self.bytes(of: image.manifestBlob, tar, bytesMax: ImageLimits.manifestBytesMax)
            var index: (Descriptor, [UInt8])?
            if image.target.descriptor.digest != image.manifestBlob.descriptor.digest {
                let bytes = try await Self.bytes(of: image.target, tar, bytesMax: ImageLimits.manifestBytesMax)
                index = (image.target.descriptor, bytes)
            }
            let parts = Parts(
                target: image.target.descriptor, index: index, manifestDescriptor: image.manifestBlob.descriptor,
                manifestBytes: manifest, manifest: try Documents.manifest(manifest, of: reference.description),
                configBytes: config)
            try await store(parts, as: reference, labels: [Self.importedLabel: "true"]) { layer, sink in
                guard let blob = image.layers.first(where: { $0.descriptor.digest == layer.digest }),
                    case .entry(let entry) = blob.source
                else { throw ImageError(.imageInvalid, "the archive lacks layer \(layer.digest)") }
                var offset: Int64 = 0
                while offset < entry.size {
                    let bytes = try await Self.read(tar, entry, at: offset, count: 1 << 20)
                    offset += Int64(bytes.count)
                    try await sink(bytes)
                }
            }
        }
    }

    private static func bytes(
        of blob: ImageArchive.Blob, _ tar: TarArchive, bytesMax: Int
    ) async throws -> [UInt8] {
        switch blob.source {
        case .bytes(let bytes): return bytes
        case .entry(let entry):
            guard entry.size <= bytesMax else {
                throw TarArchive.invalid(tar.path, "has a document of \(entry.size) bytes")
            }
            return try await read(tar, entry, at: 0, count: bytesMax)
        }
    }

    private static func read(
        _ tar: TarArchive, _ entry: TarArchive.Entry, at offset: Int64, count: Int
    ) async throws -> [UInt8] {
        try await Blocking.run { () -> Result<[UInt8], ImageError> in
            do throws(ImageError) { return .success(try tar.read(entry, at: offset, count: count)) } catch {
                return .failure(error)
            }
        }.get()
    }

    // MARK: Both

    private func store(
        _ parts: Parts,
        as reference: ImageReference,
        labels: [String: String],
        layer produce: @escaping @Sendable (_ layer: Descriptor, _ sink: ContentStore.Sink) async throws -> Void
    ) async throws {
        let name = reference.description
        let manifest = parts.manifest
        let document = try Documents.config(
            parts.configBytes, layers: manifest.layers.count, platform: platform, of: name)
        let topChain = Digest.chain(document.diffIDs)

        var keepers = ["containerd.io/gc.ref.content.config": manifest.config.digest]
        for (number, layer) in manifest.layers.enumerated() {
            keepers["containerd.io/gc.ref.content.l.\(number)"] = layer.digest
        }
        try await transfer(Self.distinct(manifest.layers), produce)
        try await content.write(
            parts.configBytes, as: manifest.config,
            labels: ["containerd.io/gc.ref.snapshot.\(unpacker.snapshotter)": topChain])
        try await content.write(parts.manifestBytes, as: parts.manifestDescriptor, labels: keepers)
        if let index = parts.index {
            try await content.write(
                index.bytes, as: index.descriptor,
                labels: ["containerd.io/gc.ref.content.m.0": parts.manifestDescriptor.digest])
        }
        _ = try await unpacker.unpack(manifest.layers, diffIDs: document.diffIDs, of: name)
        for (layer, diffID) in zip(manifest.layers, document.diffIDs) where layer.digest != diffID {
            try await content.setLabels(["containerd.io/uncompressed": diffID], of: layer.digest)
        }
        try await self.name(reference, parts.target, labels: labels)
        let size =
            manifest.layers.reduce(Int64(parts.configBytes.count + parts.manifestBytes.count)) { $0 + $1.size }
            + Int64(parts.index?.bytes.count ?? 0)
        remember(Details(topChainID: topChain, config: document.config, sizeBytes: size), parts.target.digest)
    }

    private func transfer(
        _ layers: [Descriptor],
        _ produce: @escaping @Sendable (_ layer: Descriptor, _ sink: ContentStore.Sink) async throws -> Void
    ) async throws {
        try await withThrowingTaskGroup(of: Void.self) { group in
            var waiting = layers[...]
            func next() {
                guard let layer = waiting.popFirst() else { return }
                group.addTask {
                    try await self.content.write(layer, labels: [:]) { sink in try await produce(layer, sink) }
                }
            }
            for _ in 0..<Self.layersAtOnce { next() }
            while try await group.next() != nil { next() }
        }
    }

    /// The same layer may stand in an image several times.
    private static func distinct(_ layers: [Descriptor]) -> [Descriptor] {
        var seen: Set<String> = []
        return layers.filter { seen.insert($0.digest).inserted }
    }

    private func withLease<Value: Sendable>(_ body: () async throws -> Value) async throws -> Value {
        var time = timespec()
        clock_gettime(CLOCK_REALTIME, &time)
        // Should we die in between: containerd drops the lease by itself then.
        let expiry = Timestamp(milliseconds: (Int64(time.tv_sec) + 3600) * 1000)
        var request = Containerd_Services_Leases_V1_CreateRequest()
        request.id = "hivemind-\(UInt64.random(in: 0 ... .max))"
        request.labels = ["containerd.io/gc.expire": expiry.description]
        let call = request
        let lease = try await explaining("lease space for an image") {
            try await client.unary.leases.create(call).lease.id
        }
        var delete = Containerd_Services_Leases_V1_DeleteRequest()
        delete.id = lease
        do {
            let value = try await ContainerdClient.$lease.withValue(lease) { try await body() }
            // The image is complete; a lease that stays expires.
            _ = try? await client.unary.leases.delete(delete)
            return value
        } catch {
            _ = try? await client.unary.leases.delete(delete)
            throw error
        }
    }
}
