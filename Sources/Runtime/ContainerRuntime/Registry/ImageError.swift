// SPDX-License-Identifier: Apache-2.0
public import Model

/// Why an image cannot be found, fetched, imported or removed.
public struct ImageError: ReasonError, Sendable {
    public var reason: Reason
    /// The same may go well later: the registry is away or overloaded.
    public var isTransient: Bool
    /// How long the registry wishes to be left alone.
    var retryAfterSeconds: Int?

    public init(_ code: Reason.Code, _ message: String, hint: String? = nil, isTransient: Bool = false) {
        reason = Reason(code, message, hint: hint)
        self.isTransient = isTransient
    }
}
