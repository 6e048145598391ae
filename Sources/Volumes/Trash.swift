// SPDX-License-Identifier: Apache-2.0
internal import Glibc
internal import Model

/// Where deleted volumes wait for their removal: `<directory>/.trash/<namespace>.<name>.<unique>`. No namespace can
/// be named like it, and no name contains a dot.
enum Trash {
    static let name = ".trash"

    static func unique() -> String { String(UInt64.random(in: .min ... .max), radix: 36) }

    static func prefix(_ key: ObjectKey) -> String { "\(key.namespace).\(key.name)." }

    /// Removes what `isChosen`. Every entry is tried; the first failure is thrown at the end.
    static func empty(
        in root: borrowing Directory, deadline: Deadline, isChosen: (String) -> Bool
    ) throws(VolumeError) {
        guard let trash = try root.open(name) else { return }
        var names: [String] = []
        try trash.forEachName { entry throws(VolumeError) in
            let name = String(cString: entry)
            if isChosen(name) { names.append(name) }
            return true
        }
        var failure: VolumeError?
        for name in names {
            do {
                var removal = Removal(deadline: deadline)
                try removal.remove(name, in: trash)
            } catch {
                failure = failure ?? error
            }
        }
        if let failure { throw failure }
    }
}
