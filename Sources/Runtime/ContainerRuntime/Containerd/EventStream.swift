// SPDX-License-Identifier: Apache-2.0
internal import ContainerdAPI
internal import GRPCCore
internal import Logging
internal import Model
internal import SwiftProtobuf

/// Follows containerd's events for as long as its task lives, and puts exits into the hub.
///
/// containerd neither replays nor says when a subscription stands. So each connection publishes a marker until it comes
/// back on its own stream, and only then tells the listeners to list again: nothing can fall between.
struct EventStream: Sendable {
    let client: ContainerdClient
    let hub: EventHub
    /// Whether the kernel counted an out-of-memory kill for a container.
    let countedOutOfMemory: @Sendable (ContainerID) -> Bool
    let log: Logger

    private static let markerTopic = "/hivemind/subscribed"

    func run() async {
        var delay = Duration.milliseconds(20)
        while !Task.isCancelled {
            let started = ContinuousClock.now
            do {
                try await follow()
                log.debug("event stream ended")
            } catch {
                log.debug("event stream broke", metadata: ["error": "\(error)"])
            }
            if ContinuousClock.now - started > .seconds(10) { delay = .milliseconds(20) }
            do { try await Task.sleep(for: delay) } catch { return }
            delay = min(delay * 2, .seconds(2))
        }
    }

    private func follow() async throws {
        let marker = "\(Self.markerTopic)/\(UInt64.random(in: 0 ... .max))"
        let seen = AsyncStream<Void>.makeStream(bufferingPolicy: .bufferingNewest(1))
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask {
                try await client.withStreams { services in
                    var request = Containerd_Services_Events_V1_SubscribeRequest()
                    let own = "namespace==\(ContainerdClient.containerdNamespace)"
                    request.filters = [
                        "\(own),topic==\"/tasks/exit\"", "\(own),topic==\"/tasks/oom\"", "\(own),topic==\"\(marker)\"",
                    ]
                    try await services.events.subscribe(request) { response in
                        for try await envelope in response.messages {
                            if envelope.topic == marker { seen.continuation.finish() } else { handle(envelope) }
                        }
                    }
                }
                throw CancellationError()  // The stream ended: end the marker's task with it.
            }
            group.addTask {
                await publish(marker, until: seen.stream)
                if !Task.isCancelled { hub.resync() }
            }
            defer { group.cancelAll() }
            while try await group.next() != nil {}
        }
    }

    /// Repeated until it is seen: what is published before the subscription stands is lost.
    private func publish(_ marker: String, until seen: AsyncStream<Void>) async {
        await withTaskGroup(of: Void.self) { group in
            group.addTask {
                var request = Containerd_Services_Events_V1_PublishRequest()
                request.topic = marker
                // Its content means nothing; containerd wants a type.
                request.event.typeURL = "containerd.events.TaskOOM"
                var delay = Duration.milliseconds(2)
                while !Task.isCancelled {
                    do { _ = try await client.unary.events.publish(request) } catch {
                        log.debug("marker not published", metadata: ["error": "\(error)"])
                    }
                    do { try await Task.sleep(for: delay) } catch { return }
                    delay = min(delay * 2, .seconds(1))
                }
            }
            for await _ in seen {}
            group.cancelAll()
        }
    }

    private func handle(_ envelope: Containerd_Types_Envelope) {
        guard envelope.namespace == ContainerdClient.containerdNamespace else { return }
        switch envelope.topic {
        case "/tasks/oom":
            guard let event = try? Containerd_Events_TaskOOM(serializedBytes: envelope.event.value) else { return }
            hub.noteOutOfMemory(ContainerID(event.containerID))
        case "/tasks/exit":
            // Other processes of the container have ids of their own.
            guard let event = try? Containerd_Events_TaskExit(serializedBytes: envelope.event.value),
                event.id == event.containerID
            else { return }
            let id = ContainerID(event.containerID)
            let code = Int(event.exitStatus)
            hub.noteExit(
                id,
                ExitStatus(
                    code: code,
                    outOfMemory: hub.wasOutOfMemory(id) || code == 137 && countedOutOfMemory(id),
                    at: Timestamp(protobuf: event.exitedAt)))
        default: break
        }
    }
}

extension Timestamp {
    init(protobuf: Google_Protobuf_Timestamp) {
        self.init(milliseconds: protobuf.seconds * 1000 + Int64(protobuf.nanos) / 1_000_000)
    }
}
