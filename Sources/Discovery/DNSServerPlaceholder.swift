// SPDX-License-Identifier: Apache-2.0
public import Model
public import NIOCore
public final class DNSServer: NameService {
    public init(upstreamConfiguration: String = "/etc/resolv.conf", eventLoopGroup: any EventLoopGroup) {}
    public func start(address: String, port: Int) async throws {}
    public func stop() async {}
    public func publish(_ table: NameTable) async {}
}
