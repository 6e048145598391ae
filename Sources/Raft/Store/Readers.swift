// SPDX-License-Identifier: Apache-2.0
internal import GRDB

extension StateMachine {
    /// Reads on a reader's thread, for callers that must not block.
    public func read<Value: Sendable>(_ body: @escaping @Sendable (StateView) throws -> Value) async throws -> Value {
        try await database.read { db in try body(StateView(db: db)) }
    }
}
