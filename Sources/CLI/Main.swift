// SPDX-License-Identifier: Apache-2.0
import ArgumentParser
import Yams

@main
struct Hivemind: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "hivemind")
}
