// SPDX-License-Identifier: Apache-2.0
internal import HTTPTypes
internal import HummingbirdCore
internal import Model

/// `Idempotency-Key`: a client that repeats a POST with the same key gets the answer of the first one, and nothing happens
/// twice, also when the daemon was killed in between.
enum RequestIdentity {
    /// Of the request being handled; nil when it named none.
    @TaskLocal static var current: String?

    private static let header = HTTPField.Name("Idempotency-Key")

    /// - Parameter namespace: of the resource, where the request names one.
    /// - Throws: `badRequest` for a key that cannot be kept.
    static func of(_ request: Request, namespace: String?) throws(Problem) -> String? {
        guard request.method == .post, let header, let key = request.headers[header] else { return nil }
        guard (1...128).contains(key.utf8.count), key.utf8.allSatisfy({ (33...126).contains($0) }) else {
            throw Problem(
                .badRequest, "Idempotency-Key must be 1 to 128 visible ASCII characters", hint: "a random UUID is good")
        }
        // The same key on another resource is another request.
        return "\(request.uri.path) \(namespace ?? ObjectKey.defaultNamespace) \(key)"
    }
}
