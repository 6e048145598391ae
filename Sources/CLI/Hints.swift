// SPDX-License-Identifier: Apache-2.0
internal import Model

/// What to do next, where neither the daemon nor the command said it.
enum Hints {
    static let startDaemon =
        "start it with `sudo hivemind daemon`, or name the right socket with --socket (HIVEMIND_SOCKET)"
    static let generic = "see `hivemind status` and the daemon's log"

    /// Used when a problem came without a hint.
    static func problem(_ code: Problem.Code) -> String? {
        switch code {
        case .badRequest, .invalidSpec: "see the command's --help"
        case .invalidName: "use lower-case letters, digits and hyphens"
        case .notFound: "list what exists with `ls`, and check --namespace"
        case .methodNotAllowed: "compare the versions of daemon and command line: `hivemind version`"
        case .conflict, .preconditionFailed: "look at the object's present state, then try again"
        case .compacted: "list what there is now, then follow events from the index of that list"
        case .portConflict: "choose another host port; `hivemind app ls` shows the ones in use"
        case .volumeInUse: "delete the apps that use it first, or redeploy them without it"
        case .imageInUse: "delete or redeploy the apps that use it first"
        case .imageNotFound: "check name and tag; `hivemind image ls` shows the images of this node"
        case .imageInvalid: "build the image again, for linux and this machine's architecture"
        case .registryUnreachable: "check the registry's name and the network, then try again"
        case .registryDenied: "check the image's name and that the registry lets this node read it"
        case .payloadTooLarge: "send less at once"
        case .unauthenticated, .forbidden:
            "use the socket as root, or a context with another token: `hivemind auth whoami`"
        case .busy, .noLeader, .timeout: "try again in a moment; `hivemind status` shows the node's state"
        case .noSpace: "free disk space on the node: `hivemind image rm`, `hivemind volume delete`"
        case .runtimeUnavailable: "`hivemind status` shows the state of the container runtime"
        case .internal: nil
        }
    }
}
