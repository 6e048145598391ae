// SPDX-License-Identifier: Apache-2.0
internal import Model

/// An image's /etc/passwd and /etc/group, and Docker's rules for finding a user in them. Lines that make no sense are
/// passed over, as libc does.
struct UserDatabase: Hashable, Sendable {
    struct User: Hashable, Sendable {
        var name: String
        var uid: UInt32
        var gid: UInt32
    }
    struct Group: Hashable, Sendable {
        var name: String
        var gid: UInt32
        var members: [String]
    }

    var users: [User]
    var groups: [Group]

    init(passwd: String, group: String) {
        users = passwd.split(separator: "\n").compactMap { line in
            let fields = line.split(separator: ":", omittingEmptySubsequences: false)
            guard fields.count >= 4, let uid = UInt32(fields[2]), let gid = UInt32(fields[3]) else { return nil }
            return User(name: String(fields[0]), uid: uid, gid: gid)
        }
        groups = group.split(separator: "\n").compactMap { line in
            let fields = line.split(separator: ":", omittingEmptySubsequences: false)
            guard fields.count >= 3, let gid = UInt32(fields[2]) else { return nil }
            let members = fields.count > 3 ? fields[3].split(separator: ",").map(String.init) : []
            return Group(name: String(fields[0]), gid: gid, members: members)
        }
    }

    /// Who `text` is: empty (root), `name`, `uid`, `name:group`, `uid:gid` and their mixtures.
    ///
    /// A number needs no entry. Supplementary groups are those that list the user, unless a group was named.
    /// - Throws: `userNotFound` when a name is not in the image.
    func resolve(_ text: String) throws(RuntimeError) -> OCIDocument.User {
        let parts = text.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
        let userText = parts[0]
        let groupText = parts.count > 1 && !parts[1].isEmpty ? parts[1] : nil

        let number = userText.isEmpty ? 0 : UInt32(userText)
        let entry = users.first { userText.isEmpty ? $0.uid == 0 : $0.name == userText || $0.uid == number }
        guard let uid = entry?.uid ?? number else {
            throw RuntimeError(
                .userNotFound, "the image has no user `\(userText)` in /etc/passwd",
                hint: "use a name the image has, or a number: --user 1000:1000")
        }
        if let groupText {
            guard let gid = groups.first(where: { $0.name == groupText })?.gid ?? UInt32(groupText) else {
                throw RuntimeError(
                    .userNotFound, "the image has no group `\(groupText)` in /etc/group",
                    hint: "use a name the image has, or a number: --user 1000:1000")
            }
            return OCIDocument.User(uid: uid, gid: gid, additionalGids: [gid])
        }
        let gid = entry?.gid ?? 0
        var all = [gid]
        if let name = entry?.name {
            for group in groups where group.members.contains(name) && !all.contains(group.gid) { all.append(group.gid) }
        }
        return OCIDocument.User(uid: uid, gid: gid, additionalGids: all)
    }
}
