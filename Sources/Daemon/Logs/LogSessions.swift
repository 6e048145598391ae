// SPDX-License-Identifier: Apache-2.0
internal import Model
internal import Raft

/// Streams of log lines that other nodes read page by page. A reader that stays away is forgotten.
actor LogSessions {
    /// Of one node, open at a time.
    static let perNodeMax = 128
    static let sessionsMax = 1_024
    /// A page waits so long for a first line.
    static let patience = Duration.seconds(1)
    /// Without a question for so long, a session ends.
    let silenceMax: Duration

    private struct Key: Hashable {
        var member: MemberID
        var number: UInt64
    }

    private var sessions: [Key: LogSession] = [:]
    private var next: UInt64 = 1

    init(silenceMax: Duration = .seconds(15)) { self.silenceMax = silenceMax }

    /// - Returns: the session's number.
    /// - Throws: `busy`.
    func open(_ lines: AsyncThrowingStream<AppLogLine, any Error>, for member: MemberID) async throws(Problem) -> UInt64
    {
        await sweep()
        guard sessions.count < Self.sessionsMax, sessions.keys.count(where: { $0.member == member }) < Self.perNodeMax
        else { throw Problem(.busy, "too many logs are read from this node already", hint: "end some readers") }
        let key = Key(member: member, number: next)
        next += 1
        let session = LogSession()
        sessions[key] = session
        await session.start(lines)
        Task { [weak self, weak session, silenceMax] in
            while let session, await session.silence < silenceMax {
                try? await Task.sleep(for: silenceMax / 3)
            }
            await self?.close(key.number, for: key.member)
        }
        return key.number
    }

    /// The next lines, none when there were none in time.
    func page(_ number: UInt64, for member: MemberID) async throws -> (lines: [AppLogLine], isEnd: Bool) {
        let key = Key(member: member, number: number)
        guard let session = sessions[key] else {
            throw Problem(.notFound, "this node has no log session \(number)", hint: "ask again from the beginning")
        }
        let page = try await session.page(within: Self.patience)
        if page.isEnd { sessions[key] = nil }
        return page
    }

    func close(_ number: UInt64, for member: MemberID) async {
        await sessions.removeValue(forKey: Key(member: member, number: number))?.stop()
    }

    private func sweep() async {
        for (key, session) in sessions where await session.silence >= silenceMax {
            await close(key.number, for: key.member)
        }
    }
}

/// One of them: reads ahead by a page at most.
private actor LogSession {
    private static let linesMax = 256
    private static let textBytesMax = 256 << 10

    private var lines: [AppLogLine] = []
    private var bytes = 0
    private var isEnded = false
    private var failure: (any Error)?
    private var asked = ContinuousClock.now
    private var work: Task<Void, Never>?
    private var room: CheckedContinuation<Void, Never>?
    private var reader: CheckedContinuation<Void, Never>?
    private var turn: UInt64 = 0

    var silence: Duration { ContinuousClock.now - asked }

    func start(_ stream: AsyncThrowingStream<AppLogLine, any Error>) {
        work = Task { [weak self] in
            do {
                for try await line in stream {
                    guard let self, await self.add(line) else { return }
                }
                await self?.end(nil)
            } catch {
                await self?.end(error)
            }
        }
    }

    func stop() {
        isEnded = true
        work?.cancel()
        wake()
    }

    /// Waits for room. False when nobody wants more.
    private func add(_ line: AppLogLine) async -> Bool {
        while !isEnded, lines.count >= Self.linesMax || bytes >= Self.textBytesMax {
            await withCheckedContinuation { room = $0 }
        }
        if isEnded { return false }
        lines.append(line)
        bytes += line.text.utf8.count + 128
        wakeReader()
        return true
    }

    private func end(_ error: (any Error)?) {
        isEnded = true
        failure = error
        wake()
    }

    func page(within limit: Duration) async throws -> (lines: [AppLogLine], isEnd: Bool) {
        asked = .now
        if lines.isEmpty, !isEnded {
            turn += 1
            let own = turn
            let clock = Task {
                try? await Task.sleep(for: limit)
                self.expire(own)
            }
            // A second question of the same reader answers the first with what there is.
            wakeReader()
            await withCheckedContinuation { reader = $0 }
            clock.cancel()
        }
        asked = .now
        let page = lines
        (lines, bytes) = ([], 0)
        room?.resume()
        room = nil
        if page.isEmpty, let failure { throw failure }
        return (page, isEnded && failure == nil)
    }

    private func expire(_ number: UInt64) {
        if number == turn { wakeReader() }
    }

    private func wakeReader() {
        reader?.resume()
        reader = nil
    }

    private func wake() {
        wakeReader()
        room?.resume()
        room = nil
    }
}
