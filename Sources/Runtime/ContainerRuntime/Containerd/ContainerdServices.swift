// SPDX-License-Identifier: Apache-2.0
public import ContainerdAPI
internal import GRPCCore
public import GRPCNIOTransportHTTP2

/// The generated clients over one connection. Free to copy and to make.
public struct ContainerdServices: Sendable {
    public typealias Transport = HTTP2ClientTransport.Posix

    let connection: GRPCClient<Transport>

    public var version: Containerd_Services_Version_V1_Version.Client<Transport> { .init(wrapping: connection) }
    public var introspection: Containerd_Services_Introspection_V1_Introspection.Client<Transport> {
        .init(wrapping: connection)
    }
    public var containers: Containerd_Services_Containers_V1_Containers.Client<Transport> {
        .init(wrapping: connection)
    }
    public var tasks: Containerd_Services_Tasks_V1_Tasks.Client<Transport> { .init(wrapping: connection) }
    public var images: Containerd_Services_Images_V1_Images.Client<Transport> { .init(wrapping: connection) }
    public var content: Containerd_Services_Content_V1_Content.Client<Transport> { .init(wrapping: connection) }
    public var snapshots: Containerd_Services_Snapshots_V1_Snapshots.Client<Transport> { .init(wrapping: connection) }
    public var diff: Containerd_Services_Diff_V1_Diff.Client<Transport> { .init(wrapping: connection) }
    public var leases: Containerd_Services_Leases_V1_Leases.Client<Transport> { .init(wrapping: connection) }
    public var events: Containerd_Services_Events_V1_Events.Client<Transport> { .init(wrapping: connection) }
}
