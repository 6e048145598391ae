// SPDX-License-Identifier: Apache-2.0
internal import FoundationEssentials
internal import Model

/// A reference of the simulated registry.
struct SimulatedImage {
    /// With its tag.
    let text: String
    private let repository: String

    /// - Throws: `imageInvalid` for text that is no reference.
    init(_ reference: String) throws(SimulatedError) {
        do { try Validation.image(reference) } catch {
            throw SimulatedError(.imageInvalid, error.detail, hint: error.hint)
        }
        let named = reference.split(separator: "@", maxSplits: 1, omittingEmptySubsequences: false)
        let base = named[0]
        let colon = base.lastIndex(of: ":")
        // A colon before a slash belongs to the registry's port.
        if let colon, !base[colon...].contains("/") {
            repository = String(base[..<colon])
        } else {
            repository = String(base)
        }
        guard !repository.isEmpty else {
            throw SimulatedError(.imageInvalid, "`\(reference)` names no repository")
        }
        text = named.count == 2 || base.count != repository.count ? reference : "\(reference):latest"
    }

    var isMissing: Bool { repository == "missing" || repository.hasSuffix("/missing") }

    func refuseMissing() throws(SimulatedError) {
        if isMissing {
            throw SimulatedError(.imageNotFound, "there is no image `\(text)`", hint: "check its name and tag")
        }
    }

    /// The digest the reference pins, else one made from its text, the same in every process.
    var digest: String {
        if let at = text.lastIndex(of: "@") { return String(text[text.index(after: at)...]) }
        // FNV-1a, four lanes: no secret depends on it.
        var hex = ""
        for lane in 0..<4 {
            var hash: UInt64 = 0xcbf2_9ce4_8422_2325 ^ UInt64(lane)
            for byte in text.utf8 { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01b3 }
            let part = String(hash, radix: 16)
            hex += String(repeating: "0", count: 16 - part.count) + part
        }
        return "sha256:\(hex)"
    }
}

extension Timestamp {
    /// Now, by the clock of the machine.
    static func fromSystemClock() -> Timestamp {
        Timestamp(milliseconds: Int64(Date().timeIntervalSince1970 * 1000))
    }
}
