// SPDX-License-Identifier: Apache-2.0

internal import Glibc

/// What a seed came to.
struct SeedResult {
    var seed: UInt64
    var steps: UInt64
    var trace: UInt64
    var invariant: Invariant?
    var detail = ""

    /// A line of a worker: seed, steps, trace and, if something broke, invariant and detail, with tabs between.
    init?(_ line: Substring) {
        let fields = line.split(separator: "\t", maxSplits: 4)
        guard fields.count >= 3, let seed = UInt64(fields[0]), let steps = UInt64(fields[1]),
            let trace = UInt64(fields[2])
        else { return nil }
        self.init(seed: seed, steps: steps, trace: trace)
        guard fields.count == 5 else { return }
        invariant = Invariant.allCases.first { "\($0)" == fields[3] }
        detail = String(fields[4])
    }

    init(seed: UInt64, steps: UInt64 = 0, trace: UInt64 = 0, invariant: Invariant? = nil, detail: String = "") {
        self.seed = seed
        self.steps = steps
        self.trace = trace
        self.invariant = invariant
        self.detail = detail
    }
}

/// Worker processes that share the seeds: a trap in one of them costs one seed, and is a finding.
struct Crew {
    struct Worker {
        var process: pid_t
        var pipe: Int32
        var next: UInt64
        var pending: [UInt8] = []
        var heard: ContinuousClock.Instant
    }

    let workers: Int
    /// A seed takes a fraction of a second: a worker silent for this long hangs.
    static let silenceMax = Duration.seconds(120)

    init(workers: Int) {
        self.workers = max(1, workers)
    }

    /// - Parameter take: gets each result; false ends the run.
    mutating func run(from: UInt64, end: UInt64, bug: String?, take: (SeedResult) -> Bool) {
        let stride = min(UInt64(workers), max(1, end - from))
        var crew: [Worker] = []
        for lane in 0..<stride { if let worker = start(from + lane, end, stride, bug) { crew.append(worker) } }
        var goesOn = true
        while goesOn, !crew.isEmpty {
            var polled = crew.map { pollfd(fd: $0.pipe, events: Int16(POLLIN), revents: 0) }
            _ = poll(&polled, nfds_t(polled.count), 1_000)
            for lane in crew.indices.reversed() where goesOn {
                if polled[lane].revents == 0 {
                    guard ContinuousClock.now - crew[lane].heard > Self.silenceMax else { continue }
                    kill(crew[lane].process, SIGKILL)
                }
                var bytes = [UInt8](repeating: 0, count: 1 << 16)
                let count = read(crew[lane].pipe, &bytes, bytes.count)
                crew[lane].heard = .now
                if count > 0 {
                    crew[lane].pending += bytes.prefix(count)
                    while goesOn, let line = crew[lane].nextLine() {
                        guard let result = SeedResult(line[...]) else { continue }
                        crew[lane].next = result.seed + stride
                        goesOn = take(result)
                    }
                    continue
                }
                let status = stop(crew[lane])
                let next = crew[lane].next
                crew.remove(at: lane)
                guard next < end else { continue }
                // It ended before its time: the seed it was at did that.
                goesOn = take(
                    SeedResult(seed: next, invariant: .noTrap, detail: "the process ended with status \(status)"))
                if goesOn, next + stride < end, let worker = start(next + stride, end, stride, bug) {
                    crew.append(worker)
                }
            }
        }
        for worker in crew {
            kill(worker.process, SIGKILL)
            _ = stop(worker)
        }
    }

    mutating func run(from: UInt64, end: UInt64, bug: String?, take: (SeedResult) -> Void) {
        run(from: from, end: end, bug: bug) { result in
            take(result)
            return true
        }
    }

    private func start(_ from: UInt64, _ end: UInt64, _ stride: UInt64, _ bug: String?) -> Worker? {
        var ends: [Int32] = [0, 0]
        guard pipe(&ends) == 0 else { return nil }
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_adddup2(&actions, ends[1], 1)
        posix_spawn_file_actions_addclose(&actions, ends[0])
        var arguments = ["simulate", "worker", "--from", "\(from)", "--end", "\(end)", "--stride", "\(stride)"]
        if let bug { arguments += ["--bug", bug] }
        var pointers = arguments.map { strdup($0) } + [nil]
        defer { for pointer in pointers { free(pointer) } }
        var process = pid_t()
        let status = posix_spawn(&process, "/proc/self/exe", &actions, nil, &pointers, environ)
        close(ends[1])
        guard status == 0 else {
            close(ends[0])
            return nil
        }
        return Worker(process: process, pipe: ends[0], next: from, heard: .now)
    }

    private func stop(_ worker: Worker) -> Int32 {
        close(worker.pipe)
        var status: Int32 = 0
        while waitpid(worker.process, &status, 0) < 0, errno == EINTR {}
        return status
    }
}

extension Crew.Worker {
    mutating func nextLine() -> String? {
        guard let end = pending.firstIndex(of: UInt8(ascii: "\n")) else { return nil }
        defer { pending.removeFirst(end + 1) }
        return String(decoding: pending[..<end], as: UTF8.self)
    }
}
