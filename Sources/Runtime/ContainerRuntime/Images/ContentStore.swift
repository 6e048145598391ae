// SPDX-License-Identifier: Apache-2.0
internal import ContainerdAPI
internal import Crypto
internal import FoundationEssentials
internal import GRPCCore
internal import Model
internal import SwiftProtobuf
internal import Synchronization

/// Blobs in containerd's content store, by digest.
struct ContentStore: Sendable {
    let client: ContainerdClient

    /// Hands over the next piece of a blob that is being written.
    typealias Sink = @Sendable (_ bytes: [UInt8]) async throws -> Void

    private static let chunkBytesMax = 1 << 20

    /// Size and labels, nil when it is not there.
    func info(_ digest: String) async throws -> Containerd_Services_Content_V1_Info? {
        var request = Containerd_Services_Content_V1_InfoRequest()
        request.digest = digest
        do { return try await client.unary.content.info(request).info } catch let error as RPCError
            where error.code == .notFound
        {
            return nil
        } catch { throw RuntimeError.make(error, doing: "look for blob \(digest)") }
    }

    /// A document as a whole, checked; nil when it is not there.
    func read(_ digest: String, bytesMax: Int) async throws -> [UInt8]? {
        var request = Containerd_Services_Content_V1_ReadContentRequest()
        request.digest = digest
        let call = request
        do {
            let bytes = try await client.withStreams { services in
                try await services.content.read(call) { response in
                    var bytes: [UInt8] = []
                    for try await message in response.messages {
                        bytes += message.data
                        guard bytes.count <= bytesMax else {
                            throw ImageError(.imageInvalid, "blob \(digest) has more than \(bytesMax) bytes")
                        }
                    }
                    return bytes
                }
            }
            guard Digest.of(bytes) == digest else {
                throw ImageError(
                    .digestMismatch, "the stored blob \(digest) is damaged", hint: "remove the image and pull it again")
            }
            return bytes
        } catch let error as RPCError where error.code == .notFound {
            return nil
        } catch let error as ImageError {
            throw error
        } catch { throw RuntimeError.make(error, doing: "read blob \(digest)") }
    }

    func write(_ bytes: [UInt8], as descriptor: Descriptor, labels: [String: String]) async throws {
        try await write(descriptor, labels: labels) { sink in try await sink(bytes) }
    }

    /// Stores a blob unless it is there; the labels are set either way.
    ///
    /// Checked here and by containerd: nothing appears under a digest it does not have.
    /// - Parameter produce: gives the bytes in order; runs at most once.
    func write(
        _ descriptor: Descriptor,
        labels: [String: String],
        produce: @escaping @Sendable (_ sink: Sink) async throws -> Void
    ) async throws {
        if try await info(descriptor.digest) != nil { return try await setLabels(labels, of: descriptor.digest) }
        let reference = "hivemind-\(descriptor.digest)"
        try await abort(reference)
        // What the source threw: gRPC shows it only as a cancelled call.
        let failure = Mutex<(any Error)?>(nil)
        let progress = Mutex(Progress())
        // When containerd ends the call the source fails too, but only containerd's answer says why.
        let isRefused = Mutex(false)
        var options = CallOptions.defaults
        options.timeout = .seconds(1800)
        let callOptions = options
        do {
            try await client.withStreams { services in
                try await services.content.write(options: callOptions) { writer in
                    try await writer.write(.with(.stat, reference, descriptor))
                    let sink: Sink = { bytes in
                        let start = progress.withLock { progress in
                            defer { progress.take(bytes) }
                            return progress.offset
                        }
                        var done = 0
                        while done < bytes.count {
                            let end = min(done + Self.chunkBytesMax, bytes.count)
                            var message = Containerd_Services_Content_V1_WriteContentRequest.with(
                                .write, reference, descriptor)
                            message.offset = start + Int64(done)
                            message.data = Data(bytes[done..<end])
                            do { try await writer.write(message) } catch {
                                isRefused.withLock { $0 = true }
                                throw error
                            }
                            done = end
                        }
                    }
                    do {
                        try await produce(sink)
                        try progress.withLock { try $0.check(descriptor) }
                    } catch {
                        failure.withLock { $0 = error }
                        throw error
                    }
                    var commit = Containerd_Services_Content_V1_WriteContentRequest.with(
                        .commit, reference, descriptor)
                    commit.offset = descriptor.size
                    commit.labels = labels
                    try await writer.write(commit)
                } onResponse: { response in
                    // A commit is answered twice by some versions: the end of the stream counts.
                    for try await _ in response.messages {}
                }
            }
        } catch {
            if let error = error as? RPCError, error.code == .alreadyExists {
                return try await setLabels(labels, of: descriptor.digest)
            }
            let cause = isRefused.withLock { $0 } ? nil : failure.withLock { $0 }
            // containerd keeps what was written so far; it would only cost space. The next write clears it as well.
            try? await abort(reference)
            if let cause, cause is ImageError || cause is CancellationError { throw cause }
            throw RuntimeError.make(error, doing: "store blob \(descriptor.digest)")
        }
    }

    func setLabels(_ labels: [String: String], of digest: String) async throws {
        guard !labels.isEmpty else { return }
        var request = Containerd_Services_Content_V1_UpdateRequest()
        request.info.digest = digest
        request.info.labels = labels
        request.updateMask.paths = labels.keys.sorted().map { "labels.\($0)" }
        let call = request
        _ = try await explaining("label blob \(digest)") { try await client.unary.content.update(call) }
    }

    /// Forgets a half written blob; its writer may have died a moment ago and still hold it.
    private func abort(_ reference: String) async throws {
        var request = Containerd_Services_Content_V1_AbortRequest()
        request.ref = reference
        for attempt in 1... {
            do {
                _ = try await client.unary.content.abort(request)
                return
            } catch let error as RPCError where error.code == .notFound {
                return
            } catch let error as RPCError where error.code == .unavailable && attempt < 5 {
                try await Task.sleep(for: .milliseconds(200))
            } catch { throw RuntimeError.make(error, doing: "discard a half written blob") }
        }
    }

    private struct Progress {
        var offset: Int64 = 0
        private var hash = SHA256()

        mutating func take(_ bytes: [UInt8]) {
            offset += Int64(bytes.count)
            hash.update(data: bytes)
        }

        func check(_ descriptor: Descriptor) throws(ImageError) {
            let digest = Digest.text(hash.finalize())
            guard offset == descriptor.size, digest == descriptor.digest else {
                throw ImageError(
                    .digestMismatch,
                    "blob \(descriptor.digest) arrived with \(offset) of \(descriptor.size) bytes and "
                        + "digest \(digest)", hint: "the image is damaged where it comes from; push or save it again")
            }
        }
    }
}

extension Containerd_Services_Content_V1_WriteContentRequest {
    fileprivate static func with(
        _ action: Containerd_Services_Content_V1_WriteAction, _ reference: String, _ descriptor: Descriptor
    ) -> Self {
        var request = Self()
        request.action = action
        request.ref = reference
        request.total = descriptor.size
        request.expected = descriptor.digest
        return request
    }
}
