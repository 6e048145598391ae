// SPDX-License-Identifier: Apache-2.0
import Foundation

/// h2load against one member: one request in flight per connection. The same program for every product and protocol.
struct Load {
    struct Outcome {
        var perSecond: Double
        var p50Milliseconds: Double
        var p99Milliseconds: Double
        /// Of all members, in microseconds of processor time.
        var processorMicroseconds: Double
    }

    /// What comes after the options they all have.
    var arguments: [String]
    let directory: String

    /// - Throws: when one answer is not a success.
    func run(clients: Int, seconds: Int, on cluster: any StoreCluster) throws -> Outcome {
        let log = "\(directory)/h2load.log"
        try? FileManager.default.removeItem(atPath: log)
        let before = cluster.processorSeconds
        let output = try Program.run(
            ["h2load", "-t", "1", "-c", "\(clients)", "-m", "1", "-D", "\(seconds)", "--log-file=\(log)"]
                + arguments
        ).output
        let used = cluster.processorSeconds - before
        // finished in 3.01s, 25070.00 req/s, 8.30MB/s
        // requests: 75210 total, 75226 started, 75210 done, 75210 succeeded, 0 failed, 0 errored, 0 timeout
        guard let done = Self.number(before: "succeeded", in: output), done > 0,
            let rate = Self.number(before: "req/s", in: output), Self.number(before: "failed", in: output) == 0,
            Self.number(before: "errored", in: output) == 0
        else { throw BenchError("h2load against \(cluster.name): not every request succeeded\n\(output)") }
        // start, status, duration: in microseconds
        let durations = try String(contentsOfFile: log, encoding: .utf8).split(separator: "\n").compactMap { line in
            line.split(separator: "\t").last.flatMap { Double($0) }
        }
        let times = Samples(durations)
        return Outcome(
            perSecond: rate, p50Milliseconds: times.quantile(0.5) / 1000, p99Milliseconds: times.quantile(0.99) / 1000,
            processorMicroseconds: used * 1e6 / done)
    }

    private static func number(before word: String, in text: String) -> Double? {
        guard let range = text.range(of: " \(word)") else { return nil }
        return text[..<range.lowerBound].split(whereSeparator: { $0 == " " || $0 == "\n" }).last.flatMap { Double($0) }
    }
}

/// One kind of request of one product.
struct Workload {
    var name: String
    var cluster: any StoreCluster
    /// Made anew before each run: the leader may have changed.
    var load: () throws -> Load
}
