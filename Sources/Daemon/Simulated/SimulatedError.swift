// SPDX-License-Identifier: Apache-2.0
internal import Model

/// What a simulated effect refuses with: a Reason and nothing else.
struct SimulatedError: ReasonError, Hashable {
    var reason: Reason

    init(_ code: Reason.Code, _ message: String, hint: String? = nil) {
        reason = Reason(code, message, hint: hint)
    }

    init(_ reason: Reason) { self.reason = reason }
}
