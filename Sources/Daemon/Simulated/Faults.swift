// SPDX-License-Identifier: Apache-2.0
internal import Model

/// What goes wrong in the simulated effects, by script: the next calls of a step fail in the order written.
///
///     var faults = Faults()
///     faults.fail(.start, with: Reason(.startFailed, "no luck"), times: 2)
struct Faults: Hashable, Sendable {
    enum Step: Hashable, Sendable, CaseIterable {
        case resolve, pull, importImages, start, stop, remove, removeLogs, containers
        case prepare, connect, attach, detach, program
        case ensureVolume, deleteVolume
    }

    private var scripts: [Step: [Reason?]] = [:]
    /// Host ports another program listens on.
    var portsInUse: Set<UInt16> = []

    init() {}

    /// The next `times` calls of `step` fail; after those already written.
    mutating func fail(_ step: Step, with reason: Reason, times: Int = 1) {
        scripts[step, default: []] += Array(repeating: reason, count: times)
    }

    /// The next `times` calls of `step` succeed before what is written after this.
    mutating func pass(_ step: Step, times: Int = 1) {
        scripts[step, default: []] += Array(repeating: nil, count: times)
    }

    /// Takes the next entry of the step's script.
    mutating func take(_ step: Step) throws(SimulatedError) {
        guard var script = scripts[step], !script.isEmpty else { return }
        let reason = script.removeFirst()
        scripts[step] = script
        if let reason { throw SimulatedError(reason) }
    }
}
