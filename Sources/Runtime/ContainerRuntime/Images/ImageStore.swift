// SPDX-License-Identifier: Apache-2.0
internal import ContainerdAPI
internal import FoundationEssentials
internal import GRPCCore
public import HTTPClient
public import Model
internal import SwiftProtobuf
internal import Synchronization

/// The images of a node: found in registries, fetched, imported, unpacked, listed, removed.
///
/// An image is stored under its full reference and, for as long as that name stands, also under `name@digest`: a tag
/// that moves on must not take away the image from the services pinned to what it meant before. Errors are
/// `ImageError` (names, registries, content) or `RuntimeError` (containerd).
public final class ImageStore: Sendable {
    /// On images that came from an archive: no registry is asked what they are.
    static let importedLabel = "hivemind.imported"
    private static let cacheMax = 1000

    let client: ContainerdClient
    let content: ContentStore
    let unpacker: Unpacker
    let registry: RegistryClient
    let platform = Platform.current
    private let resolveDeadline: Duration
    private let flights = SingleFlight()
    /// By target digest; content never changes under a digest, only whether it is there.
    private let details = Mutex<[String: Details]>([:])

    /// - Parameters:
    ///   - insecureRegistries: `host[:port]` of registries spoken to in plain http, besides loopback.
    ///   - snapshotter: of containerd, `overlayfs` or `native`.
    public init(
        client: ContainerdClient,
        http: HTTPClient = HTTPClient(),
        insecureRegistries: Set<String> = [],
        snapshotter: String = "overlayfs",
        resolveDeadline: Duration = .seconds(10)
    ) {
        self.client = client
        content = ContentStore(client: client)
        unpacker = Unpacker(client: client, snapshotter: snapshotter)
        registry = RegistryClient(http: http, insecureRegistries: insecureRegistries)
        self.resolveDeadline = resolveDeadline
    }

    /// What a reference means now: the registry says so, except for imported images; when it cannot be reached within
    /// `resolveDeadline`, what is stored counts.
    public func resolve(image text: String) async throws -> ResolvedImage {
        let reference = try ImageReference(text)
        let name = reference.description
        let stored = try await image(named: name)
        if let stored, stored.labels[Self.importedLabel] != nil || reference.digest == stored.target.digest {
            return ResolvedImage(reference: name, digest: stored.target.digest, isLocal: true)
        }
        let registry = registry
        do {
            let digest = try await withDeadline(
                resolveDeadline,
                ImageError(
                    .registryUnreachable,
                    "registry \(reference.registry) did not say within \(resolveDeadline) what \(name) is",
                    hint: "check the network, or import the image from an archive", isTransient: true)
            ) { try await registry.digest(of: reference) }
            return ResolvedImage(reference: name, digest: digest, isLocal: false)
        } catch let error as ImageError where error.reason.code == .registryUnreachable {
            guard let stored else { throw error }
            return ResolvedImage(reference: name, digest: stored.target.digest, isLocal: true)
        }
    }

    /// Fetches and unpacks unless all of it is here: then three calls to containerd. Calls for the same image share one
    /// transfer; it ends after 30 minutes at most.
    public func pull(image text: String, digest: String) async throws {
        let reference = try ImageReference(text)
        guard Digest.isValid(digest) else {
            throw ImageError(.imageInvalid, "`\(digest)` is not a digest", hint: "use what resolving the image gave")
        }
        if try await isComplete(reference, digest) { return }
        try await flights.run("\(reference) \(digest)") { [self] in
            try await withDeadline(
                .seconds(1800),
                ImageError(.deadlineExceeded, "pulling \(reference) took longer than 30 minutes", isTransient: true)
            ) { try await self.fetch(reference, digest: digest) }
        }
    }

    /// Imports every image of an OCI-layout or docker-archive tar, sorted by name.
    /// - Parameter name: for an image the archive does not name.
    public func importImages(archive path: String, name: String?) async throws -> [ImageSummary] {
        let platform = platform
        let archive = try await Blocking.run { () -> Result<ImageArchive, ImageError> in
            do throws(ImageError) { return .success(try ImageArchive(path: path, platform: platform)) } catch {
                return .failure(error)
            }
        }.get()
        let names = try Self.names(of: archive, given: name)
        for (image, name) in zip(archive.images, names) { try await store(image, from: archive.tar, as: name) }
        let wanted = Set(names.map(\.description))
        return try await images().filter { wanted.contains($0.name) }
    }

    /// What a container needs of a pulled image; read once, then from memory. Throws `imageNotFound` when it is not here.
    public func unpacked(image text: String, digest: String) async throws -> UnpackedImage {
        let details = try await details(of: digest, image: text)
        return UnpackedImage(topChainID: details.topChainID, config: details.config)
    }

    /// Sorted by name; the `name@digest` twins only where no tag of the same image stands.
    public func images() async throws -> [ImageSummary] {
        let stored = try await explaining("list images") {
            try await client.unary.images.list(Containerd_Services_Images_V1_ListImagesRequest()).images
        }
        let tagged = Set(stored.filter { !$0.name.contains("@") }.map { Self.repository($0.name) + $0.target.digest })
        var summaries: [ImageSummary] = []
        for image in stored {
            if image.name.contains("@"), tagged.contains(Self.repository(image.name) + image.target.digest) { continue }
            // Half removed content must not hide the other images.
            let size = (try? await details(of: image.target.digest, image: image.name))?.sizeBytes
            let seconds = image.hasCreatedAt ? image.createdAt.seconds : nil
            summaries.append(
                ImageSummary(
                    name: image.name, digest: image.target.digest, sizeBytes: size ?? image.target.size,
                    createdAt: seconds.map { Timestamp(milliseconds: $0 * 1000) }))
        }
        return summaries.sorted { $0.name < $1.name }
    }

    /// Removes the name, and its content unless another name or a container uses it.
    public func removeImage(_ text: String) async throws {
        let reference = try ImageReference(text)
        guard let stored = try await image(named: reference.description) else {
            throw ImageError(
                .imageNotFound, "image \(reference) is not stored on this node", hint: "see `hivemind image ls`")
        }
        var names = [reference.description]
        let twin = Self.twin(reference, stored.target.digest)
        let others = try await images().filter {
            $0.name != reference.description && $0.digest == stored.target.digest
                && Self.repository($0.name) == reference.name
        }
        if others.isEmpty, twin != reference.description, try await image(named: twin) != nil {
            names.insert(twin, at: 0)
        }
        for (index, name) in names.enumerated() {
            var request = Containerd_Services_Images_V1_DeleteImageRequest()
            request.name = name
            request.sync = index == names.count - 1
            do { _ = try await client.unary.images.delete(request) } catch let error as RPCError
                where error.code == .notFound
            {
                continue
            } catch { throw RuntimeError.make(error, doing: "remove image \(name)") }
        }
        _ = details.withLock { $0.removeValue(forKey: stored.target.digest) }
    }

    // MARK: Names

    static func twin(_ reference: ImageReference, _ digest: String) -> String { "\(reference.name)@\(digest)" }

    private static func repository(_ name: String) -> String { (try? ImageReference(name))?.name ?? name }

    private static func names(
        of archive: ImageArchive, given: String?
    ) throws(ImageError) -> [ImageReference] {
        var names: [ImageReference] = []
        let nameless = archive.images.count { $0.name == nil }
        guard nameless < 2 else {
            throw TarArchive.invalid(
                archive.tar.path, "has \(nameless) images without a name", hint: "save them one by one, or with names")
        }
        for image in archive.images {
            guard let name = image.name ?? given else {
                throw TarArchive.invalid(
                    archive.tar.path, "does not name its image",
                    hint: "give it one with --name, for example --name web:1")
            }
            names.append(try ImageReference(name))
        }
        return names
    }

    func image(named name: String) async throws -> Containerd_Services_Images_V1_Image? {
        var request = Containerd_Services_Images_V1_GetImageRequest()
        request.name = name
        do { return try await client.unary.images.get(request).image } catch let error as RPCError
            where error.code == .notFound
        {
            return nil
        } catch { throw RuntimeError.make(error, doing: "look for image \(name)") }
    }

    /// Makes both names stand for the target.
    func name(_ reference: ImageReference, _ target: Descriptor, labels: [String: String]) async throws {
        for name in Set([reference.description, Self.twin(reference, target.digest)]).sorted() {
            var image = Containerd_Services_Images_V1_Image()
            image.name = name
            image.labels = labels
            image.target.mediaType = target.mediaType
            image.target.digest = target.digest
            image.target.size = target.size
            var request = Containerd_Services_Images_V1_CreateImageRequest()
            request.image = image
            do { _ = try await client.unary.images.create(request) } catch let error as RPCError
                where error.code == .alreadyExists
            {
                var update = Containerd_Services_Images_V1_UpdateImageRequest()
                update.image = image
                let call = update
                _ = try await explaining("name image \(name)") { try await client.unary.images.update(call) }
            } catch { throw RuntimeError.make(error, doing: "name image \(name)") }
        }
    }

    // MARK: Content

    /// What is known of an image whose manifest and config are stored.
    struct Details: Sendable {
        var topChainID: String
        var config: ImageConfig
        /// Manifest, config and compressed layers of this platform.
        var sizeBytes: Int64
    }

    /// Whether the image of this digest can be run as it is. What a tag means by now does not matter: the digest was
    /// pinned, and an image imported here has no registry to ask again after a restart of the daemon.
    private func isComplete(_ reference: ImageReference, _ digest: String) async throws -> Bool {
        guard try await image(named: Self.twin(reference, digest)) != nil else { return false }
        let known: Details
        do { known = try await details(of: digest, image: reference.description) } catch is ImageError { return false }
        return try await unpacker.exists(known.topChainID)
    }

    private func details(of digest: String, image: String) async throws -> Details {
        if let known = details.withLock({ $0[digest] }) { return known }
        func missing() -> ImageError {
            ImageError(
                .imageNotFound, "image \(image) (\(digest)) is not stored on this node", hint: "pull it first")
        }
        guard var bytes = try await content.read(digest, bytesMax: ImageLimits.manifestBytesMax) else {
            throw missing()
        }
        var size = Int64(bytes.count)
        for _ in 0..<3 {
            guard let index = try? JSON.decode(ManifestIndex.self, from: Data(bytes)) else { break }
            guard let chosen = platform.choose(from: index.manifests),
                let next = try await content.read(chosen.digest, bytesMax: ImageLimits.manifestBytesMax)
            else { throw missing() }
            bytes = next
            size += Int64(bytes.count)
        }
        let manifest = try Documents.manifest(bytes, of: image)
        guard let config = try await content.read(manifest.config.digest, bytesMax: ImageLimits.configBytesMax) else {
            throw missing()
        }
        let document = try Documents.config(config, layers: manifest.layers.count, platform: platform, of: image)
        size += Int64(config.count) + manifest.layers.reduce(0) { $0 + $1.size }
        let found = Details(
            topChainID: Digest.chain(document.diffIDs), config: document.config, sizeBytes: size)
        remember(found, digest)
        return found
    }

    func remember(_ found: Details, _ digest: String) {
        details.withLock { details in
            if details.count >= Self.cacheMax { details = [:] }
            details[digest] = found
        }
    }
}
