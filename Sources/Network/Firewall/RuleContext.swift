// SPDX-License-Identifier: Apache-2.0
internal import CNftables
internal import Glibc

/// libnftables, for the namespace of the thread that makes it. One user at a time.
struct RuleContext: ~Copyable {
    private let raw: OpaquePointer

    init() throws(NetworkError) {
        guard let raw = nft_ctx_new(UInt32(NFT_CTX_DEFAULT)) else {
            throw NetworkError(.exhausted, "no memory for nftables")
        }
        self.raw = raw
        nft_ctx_buffer_error(raw)
        nft_ctx_buffer_output(raw)
    }

    deinit { nft_ctx_free(raw) }

    /// All of `text` takes effect, or none of it.
    func run(_ text: String) throws(NetworkError) {
        guard nft_run_cmd_from_buffer(raw, text) != 0 else { return }
        let said = nft_ctx_get_error_buffer(raw).map { String(cString: $0) } ?? ""
        let line = said.split(separator: "\n").first.map(String.init) ?? "no reason given"
        // libnftables gives no code, only text; this one decides idempotence.
        let missing = line.contains(String(cString: strerror(ENOENT)))
        throw NetworkError(
            missing ? .notFound : .kernel,
            "nftables refused the rules of table `\(Ruleset.table)`: \(line.prefix(300))",
            hint: "see `nft list table \(Ruleset.table)`",
            errno: missing ? ENOENT : 0
        )
    }

    func hasTable() -> Bool { output(of: "list tables inet").contains("table \(Ruleset.table)") }
    func hasChain(_ name: String) -> Bool { output(of: "list chain \(Ruleset.table) \(name)").contains(name) }

    /// Names of the chains of our table.
    func chains() -> [Substring] {
        // Every table of the family, as `table inet NAME {`, its chains indented, and `}`.
        let tables = output(of: "list chains inet").split(separator: "\n").drop { $0 != "table \(Ruleset.table) {" }
        return tables.dropFirst().prefix { $0 != "}" }.compactMap { line in
            let words = line.split(whereSeparator: \.isWhitespace)
            return words.count == 3 && words[0] == "chain" ? words[1] : nil
        }
    }

    /// Empty when the kernel refused `command`: what it would list is not there.
    private func output(of command: String) -> String {
        guard nft_run_cmd_from_buffer(raw, command) == 0, let output = nft_ctx_get_output_buffer(raw) else { return "" }
        return String(cString: output)
    }
}
