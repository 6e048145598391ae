// SPDX-License-Identifier: Apache-2.0
internal import ContainerdAPI
internal import GRPCCore
internal import Model

/// Makes snapshots out of layers, one on top of the other. Layers another image has unpacked already are shared.
struct Unpacker: Sendable {
    let client: ContainerdClient
    let snapshotter: String

    /// - Parameter diffIDs: digests of the uncompressed layers, lowest first, as many as `layers`.
    /// - Returns: the name of the topmost snapshot.
    func unpack(_ layers: [Descriptor], diffIDs: [String], of image: String) async throws -> String {
        var below: [String] = []
        for (layer, diffID) in zip(layers, diffIDs) {
            let parent = Digest.chain(below)
            below.append(diffID)
            let chain = Digest.chain(below)
            if try await exists(chain) { continue }
            try await apply(layer, diffID: diffID, parent: parent, chain: chain, image: image)
        }
        return Digest.chain(below)
    }

    func exists(_ chain: String) async throws -> Bool {
        var request = Containerd_Services_Snapshots_V1_StatSnapshotRequest()
        request.snapshotter = snapshotter
        request.key = chain
        do {
            return try await client.unary.snapshots.stat(request).info.kind == .committed
        } catch let error as RPCError where error.code == .notFound {
            return false
        } catch { throw RuntimeError.make(error, doing: "look for a snapshot") }
    }

    private func apply(
        _ layer: Descriptor, diffID: String, parent: String, chain: String, image: String
    ) async throws {
        let key = "extract-\(UInt64.random(in: 0 ... .max)) \(chain)"
        var prepare = Containerd_Services_Snapshots_V1_PrepareSnapshotRequest()
        prepare.snapshotter = snapshotter
        prepare.key = key
        prepare.parent = parent
        let call = prepare
        let mounts = try await explaining("prepare a snapshot of \(image)") {
            try await client.unary.snapshots.prepare(call).mounts
        }
        do {
            var request = Containerd_Services_Diff_V1_ApplyRequest()
            request.diff.mediaType = layer.mediaType
            request.diff.digest = layer.digest
            request.diff.size = layer.size
            request.mounts = mounts
            var options = CallOptions.defaults
            options.timeout = .seconds(900)
            let applied = try await client.unary.diff.apply(request, options: options).applied
            guard applied.digest == diffID else {
                throw ImageError(
                    .digestMismatch,
                    "layer \(layer.digest) of \(image) unpacks to \(applied.digest) instead of \(diffID)",
                    hint: "the image is damaged; build and push it again")
            }
            var commit = Containerd_Services_Snapshots_V1_CommitSnapshotRequest()
            commit.snapshotter = snapshotter
            commit.name = chain
            commit.key = key
            do { _ = try await client.unary.snapshots.commit(commit) } catch let error as RPCError
                where error.code == .alreadyExists
            {
                // Another image with the same layer was faster.
                await remove(key)
            }
        } catch {
            await remove(key)
            throw explained(error, layer, image)
        }
    }

    private func explained(_ error: any Error, _ layer: Descriptor, _ image: String) -> any Error {
        let doing = "unpack layer \(layer.digest) (\(layer.mediaType)) of \(image)"
        guard let error = error as? RPCError, error.code == .unimplemented || error.code == .unknown else {
            return error is ImageError ? error : RuntimeError.make(error, doing: doing)
        }
        let explained = RuntimeError.make(error, doing: doing)
        guard let reason = (explained as? RuntimeError)?.reason, reason.code == .internal else { return explained }
        let isZstd = layer.mediaType.hasSuffix("zstd")
        return ImageError(
            .imageInvalid, reason.message,
            hint: isZstd
                ? "this containerd cannot read zstd layers: build the image with gzip" : "build the image again")
    }

    /// Best effort: the garbage collector takes what stays once the lease ends.
    private func remove(_ key: String) async {
        var request = Containerd_Services_Snapshots_V1_RemoveSnapshotRequest()
        request.snapshotter = snapshotter
        request.key = key
        _ = try? await client.unary.snapshots.remove(request)
    }
}
