// SPDX-License-Identifier: Apache-2.0
internal import ArgumentParser
internal import Model

struct VolumeCreate: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "create", abstract: "Create a volume; nothing changes when it exists.",
        discussion: "Example:\n  hivemind volume create data")

    @OptionGroup var volume: NameArgument
    @OptionGroup(title: "Common") var global: GlobalOptions
    @OptionGroup(title: "Common") var scope: NamespaceOption

    func run() async throws {
        let name = try volume.required("volume")
        let output = try global.result(namespace: scope.namespace)
        let client = global.client(namespace: scope.namespace)
        let reply = try await client.call("PUT", "/v1/volumes/\(Client.escape(name))")
        let view: Answer<VolumeView> = try client.decode(reply)
        try output.show(json: view.body, names: [name]) { _ in
            view.status == 201 ? "volume `\(name)` is created\n" : "volume `\(name)` exists already\n"
        }
        output.next("app deploy NAME --image IMAGE --volume \(name):/data", "volume info \(name)")
    }
}
