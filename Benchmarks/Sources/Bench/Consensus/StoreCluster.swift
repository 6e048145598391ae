// SPDX-License-Identifier: Apache-2.0
import Foundation

/// Several members of one replicated store on this machine, driven as its clients drive it.
protocol StoreCluster: AnyObject {
    var name: String { get }
    /// Names of the members, in the order they are started.
    var members: [String] { get }
    /// Starts what does not run; does not wait.
    func start(_ member: String) throws
    /// Ends it as a crash would.
    func kill(_ member: String)
    /// Ends it as an operator would, and waits.
    func stop(_ member: String)
    func pid(_ member: String) -> pid_t?
    /// As the members say it; nil while there is none.
    func leader() -> String?
    /// Whether this member takes one write now. At most a second.
    func accepts(_ member: String) -> Bool
    /// Whether this member answers a linearizable read now. At most a second.
    func answers(_ member: String) -> Bool
    /// Index up to which the member has applied the log; nil when it does not say.
    func applied(_ member: String) -> UInt64?
    /// Writes values of that size under that many names, through the leader.
    func fill(count: Int, names: Int, bytes: Int) throws
}

extension StoreCluster {
    func startAll() throws {
        for member in members { try start(member) }
        _ = try waitForWrites(through: members)
    }

    func killAll() {
        for member in members { kill(member) }
    }

    /// Tries each member in turn until one takes a write.
    func waitForWrites(through members: [String]) throws -> String {
        try eventually("\(name) takes a write", everyMicroseconds: 5000) { members.first { accepts($0) } }
    }

    func waitForLeader() throws -> String {
        try eventually("\(name) has a leader", everyMicroseconds: 5000) { leader() }
    }

    /// Seconds of processor time of all members so far.
    var processorSeconds: Double {
        members.compactMap { pid($0) }.map { pid in
            guard let text = try? String(contentsOfFile: "/proc/\(pid)/stat", encoding: .utf8),
                let tail = text.split(separator: ")").last
            else { return 0 }
            let fields = tail.split(separator: " ")
            guard fields.count > 12, let user = Double(fields[11]), let system = Double(fields[12]) else { return 0 }
            return (user + system) / Double(sysconf(Int32(_SC_CLK_TCK)))
        }.reduce(0, +)
    }
}
