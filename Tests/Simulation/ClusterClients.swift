// SPDX-License-Identifier: Apache-2.0

internal import Raft
internal import TestSupport

// Clients with one operation at a time, and watchers that go from member to member.
extension Cluster {
    /// Attempts before a client gives up on an operation; with less patience than the answers are remembered.
    static let attemptsMax = 12

    func wake(_ number: Int, _ attempt: Int) throws {
        guard clients[number].attempts == attempt else { return }
        if clients[number].request != nil {
            // No answer in time: somebody else, the same request.
            clients[number].guess = nil
            if clients[number].attempts % Self.attemptsMax == 0, !isHealing {
                giveUp(number)
            } else {
                return sendAttempt(number)
            }
        }
        guard !isHealing else { return }
        begin(number)
    }

    private func begin(_ number: Int) {
        let key = Int.random(in: 0..<options.keys, using: &random)
        let operation: Request.Operation
        let action: HistoryOperation<UInt64>.Action
        switch Int.random(in: 0..<10, using: &random) {
        case 0..<4:
            nextRequest += 1
            nextValue += 1
            let value = random.oneIn(10) ? 0 : nextValue
            operation = .write(ModelCommand(kind: .put, request: nextRequest, key: key, value: value))
            action = .write(value)
        case 4..<6:
            nextRequest += 1
            nextValue += 1
            // Near enough to the truth to succeed often.
            let (version, expected) = checker.register(key, at: checker.acknowledged)
            operation = .write(
                ModelCommand(
                    kind: .swap, request: nextRequest, key: key, value: nextValue, expected: expected, version: version)
            )
            action = .swap(expected: expected, new: nextValue)
        case 6..<9:
            operation = .read(key: key)
            action = .read
        default:
            operation = .staleRead(key: key)
            action = .read
        }
        var isStale = false
        if case .staleRead = operation { isStale = true }
        if !isStale {
            clients[number].operation = checker.history.count
            checker.history.append(
                HistoryOperation(client: number, key: "\(key)", action: action, called: now))
        }
        clients[number].called = now
        clients[number].request = Request(
            client: number, operation: operation, attempt: 0, to: 0, acknowledged: checker.acknowledged)
        sendAttempt(number)
    }

    private func giveUp(_ number: Int) {
        clients[number].request = nil
        clients[number].attempts += 1
    }

    private func sendAttempt(_ number: Int) {
        let present = roster.filter { $0.fate == .present }
        guard var request = clients[number].request, !present.isEmpty else { return }
        clients[number].attempts += 1
        request.attempt = clients[number].attempts
        let target = random.oneIn(4) ? nil : clients[number].guess
        request.to = target ?? present[Int.random(in: present.indices, using: &random)].id
        clients[number].request = request
        if !perMille(isHealing ? 0 : options.dropPerMille / 2) { plan(.request(request), after: delay(500)) }
        plan(.client(number, attempt: request.attempt), after: options.patience)
    }

    /// A request reaches its member.
    func take(_ request: Request) throws {
        guard let member = members[request.to], member.isUp else { return }
        if member.pausedUntil > now { return plan(.request(request), after: member.pausedUntil - now) }
        switch request.operation {
        case .write(let command):
            let token = member.token()
            member.proposals[token] = request
            let padding = Int.random(in: 0...options.paddingMax, using: &random)
            feed(member, .propose([Proposal(token: token, payload: try encoded(command, padding, at: member))]))
        case .read:
            let token = member.token()
            member.reads[token] = request
            feed(member, .read(token: token))
        case .staleRead: try answerRead(request, member)
        }
    }

    private func encoded(_ command: ModelCommand, _ padding: Int, at member: Member) throws -> [UInt8] {
        guard options.isReal else { return command.encoded(padding: padding) }
        return try command.real(version: command.version, at: clock(of: member), padding: padding)
    }

    func reply(_ request: Request, _ reply: Reply) {
        guard !perMille(isHealing ? 0 : options.dropPerMille / 2) else { return }
        plan(.reply(request, reply), after: delay(500))
    }

    func answer(_ request: Request, _ reply: Reply) throws {
        if case .refused = reply {} else { try checker.answered(request, reply) }
        let number = request.client
        // A late answer to an earlier attempt is as good: it is the same request.
        guard let current = clients[number].request, isSame(current, request) else { return }
        switch reply {
        case .refused(let leader):
            guard request.attempt == clients[number].attempts else { return }
            clients[number].guess = leader
            clients[number].attempts += 1
            return plan(.client(number, attempt: clients[number].attempts), after: delay(20_000))
        case .written(let answer):
            note("client \(number): request done at \(answer.index) by \(request.to)")
            if case .write(let command) = request.operation {
                finish(number, command.kind == .put ? .written : .swapped(answer.succeeded))
            }
        case .read(let value, let index):
            note("client \(number): reads \(value) at \(index) from \(request.to)")
            if case .read = request.operation { finish(number, .read(value)) }
        }
        clients[number].guess = request.to
        clients[number].request = nil
        clients[number].attempts += 1
        plan(.client(number, attempt: clients[number].attempts), after: delay(options.thinking))
    }

    private func isSame(_ one: Request, _ other: Request) -> Bool {
        switch (one.operation, other.operation) {
        case (.write(let first), .write(let second)): first.request == second.request
        case (.read, .read), (.staleRead, .staleRead): one.attempt == other.attempt
        default: false
        }
    }

    private func finish(_ number: Int, _ result: HistoryOperation<UInt64>.Result) {
        let place = clients[number].operation
        checker.history[place].returned = now
        checker.history[place].result = result
    }

    // MARK: - Load

    /// Proposals that follow one another faster than they are acknowledged.
    func load(until: UInt64) throws {
        guard now < until else { return }
        plan(.load(until: until), after: max(100, options.diskDelay / 4))
        guard let leader = leading else { return }
        nextRequest += 1
        nextValue += 1
        let command = ModelCommand(kind: .put, request: nextRequest, key: 0, value: nextValue)
        feed(leader, .propose([Proposal(token: leader.token(), payload: try encoded(command, 0, at: leader))]))
    }

    // MARK: - Watchers

    /// Takes the next events from any member; lists where they are gone.
    func watch(_ number: Int) throws {
        plan(.watch(number), after: delay(300_000))
        let up = roster.filter(\.isUp)
        guard let member = up.randomElement(using: &random) else { return }
        let after = watchers[number].after
        let through = member.state.applied.index
        guard through > after else { return }
        if let events = member.state.events(after: after) {
            try checker.watched(events, after: after, through: through, from: member)
        }
        watchers[number].after = through
        if let page = try member.real?.events(after: after) {
            try checker.watched(page.events, after: after, through: page.through, from: member)
            watchers[number].after = min(through, page.through)
        }
        watchers[number].batches += 1
    }
}
