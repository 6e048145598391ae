// SPDX-License-Identifier: Apache-2.0

internal import Raft

/// One change of the model's state: a few registers with compare-and-set, each request with an id.
struct ModelCommand: Equatable {
    enum Kind: UInt8 {
        case put = 1
        /// Sets `value` if the register holds `expected`.
        case swap = 2
    }

    var kind: Kind
    var request: UInt64
    var key: Int
    /// 0 stands for "nothing there": putting it deletes.
    var value: UInt64
    var expected: UInt64 = 0
    /// Where `expected` was set, as far as the client knows.
    var version: UInt64 = 0

    /// - Parameter padding: bytes to add, so that entries differ in size.
    func encoded(padding: Int) -> [UInt8] {
        var writer = ByteWriter()
        writer.put(kind.rawValue)
        writer.put(request)
        writer.put(UInt8(key))
        writer.put(value)
        writer.put(expected)
        writer.put(repeatElement(UInt8(1 + request % 255), count: padding))
        return writer.bytes
    }

    init(kind: Kind, request: UInt64, key: Int, value: UInt64, expected: UInt64 = 0, version: UInt64 = 0) {
        self.kind = kind
        self.request = request
        self.key = key
        self.value = value
        self.expected = expected
        self.version = version
    }

    static func decoded(_ payload: [UInt8], isReal: Bool) throws -> ModelCommand? {
        isReal ? try ModelCommand(real: payload) : ModelCommand(payload)
    }

    private init?(_ payload: [UInt8]) {
        var reader = ByteReader(payload[...])
        guard let raw = reader.take(UInt8.self), let kind = Kind(rawValue: raw),
            let request = reader.take(UInt64.self), let key = reader.take(UInt8.self),
            let value = reader.take(UInt64.self), let expected = reader.take(UInt64.self)
        else { return nil }
        self.init(kind: kind, request: request, key: Int(key), value: value, expected: expected)
    }
}

/// A small state machine with the properties of the real one: exactly-once by request id, versions, events, membership.
struct ModelState {
    /// What a request was answered; the same for every repetition.
    struct Answer: Equatable {
        /// Where it took effect first.
        var index: UInt64
        var succeeded: Bool
    }

    struct Event: Equatable {
        var index: UInt64
        var key: Int
        var value: UInt64
    }

    static let keysMax = 8
    /// Answers remembered: more than can be given while a client still repeats its request.
    static let answersMax = 4_000
    static let eventsMax = 120

    private(set) var applied = LogPosition.origin
    private(set) var configuration: ConfigurationPoint
    private(set) var values = [UInt64](repeating: 0, count: keysMax)
    private(set) var versions = [UInt64](repeating: 0, count: keysMax)
    private(set) var answers: [UInt64: Answer] = [:]
    private var answerOrder: [UInt64] = []
    private(set) var events: [Event] = []
    /// Events at or below this index are gone.
    private(set) var eventsFloor: UInt64 = 0
    /// Of everything applied so far.
    private(set) var chain: UInt64 = 0
    /// Something in the state that no entry put there: nobody sees it but those who compare whole states.
    private(set) var dust: UInt64 = 0
    /// Entries are the product's commands.
    let isReal: Bool
    /// The product's state at this point, in states that were put aside.
    var image: [UInt8] = []

    init(configuration: ConfigurationPoint, isReal: Bool = false) {
        self.configuration = configuration
        self.isReal = isReal
    }

    struct Applied {
        var answer: Answer?
        /// The request was answered before: nothing happened.
        var isRepeated = false
    }

    /// - Parameter clock: of the member that applies; nothing may depend on it.
    mutating func apply(_ entry: Entry, clock: UInt64) throws -> Applied {
        applied = entry.position
        if Planted.isActive(.clockInApply), clock % 64 == 0 { chain = mix(chain, clock) }
        var outcome = Applied()
        switch entry.kind {
        case .noop: break
        case .configuration:
            if let membership = Membership(decoding: entry.payload) {
                configuration = ConfigurationPoint(index: entry.index, membership: membership)
            }
        case .command:
            if let command = try ModelCommand.decoded(entry.payload, isReal: isReal) {
                outcome = apply(command, at: entry.index)
            }
        }
        chain = mix(chain, entry.index, entry.term, UInt64(entry.kind.rawValue))
        if let answer = outcome.answer {
            chain = mix(chain, answer.index, answer.succeeded ? 1 : 0, outcome.isRepeated ? 1 : 0)
        }
        return outcome
    }

    private mutating func apply(_ command: ModelCommand, at index: UInt64) -> Applied {
        if let answer = answers[command.request] { return Applied(answer: answer, isRepeated: true) }
        let succeeds = command.kind == .put || values[command.key] == command.expected
        if Planted.isActive(.dictionaryOrder), answers.count % 16 == 15, let first = answers.keys.first {
            chain = mix(chain, first)
        }
        if succeeds {
            values[command.key] = command.value
            versions[command.key] = index
            events.append(Event(index: index, key: command.key, value: command.value))
            if events.count > Self.eventsMax * 2 { dropEvents() }
        }
        let answer = Answer(index: index, succeeded: succeeds)
        answers[command.request] = answer
        answerOrder.append(command.request)
        let answersMax = Planted.isActive(.answersForgotten) ? 1 : Self.answersMax
        if answerOrder.count > answersMax * 2 {
            for request in answerOrder.prefix(answersMax) { answers[request] = nil }
            answerOrder.removeFirst(answersMax)
        }
        return Applied(answer: answer)
    }

    private mutating func dropEvents() {
        let dropped = events.count - Self.eventsMax
        eventsFloor = events[dropped - 1].index
        events.removeFirst(dropped)
    }

    /// What a snapshot of this state carries; the one who installs it has no events of before.
    func snapshot() -> ModelState {
        var copy = self
        copy.events = []
        copy.eventsFloor = applied.index
        if Planted.isActive(.snapshotWithoutAnswers) {
            copy.answers = [:]
            copy.answerOrder = []
        }
        return copy
    }

    var meta: SnapshotMeta {
        var position = applied
        if Planted.isActive(.snapshotWrongIndex) { position.index += 1 }
        return SnapshotMeta(position: position, configuration: configuration)
    }

    /// A state whose rows are newer than what it says it has applied.
    mutating func forgetApplied(_ earlier: ModelState) {
        applied = earlier.applied
        configuration = earlier.configuration
    }

    mutating func gather(dust: UInt64) { self.dust = dust }

    /// What comes of a snapshot's rows with the pages of this state's journal played onto them.
    func replaced(by snapshot: ModelState) -> ModelState {
        var mixed = snapshot
        mixed.values = values
        mixed.versions = versions
        return mixed
    }

    /// Events after `index`, nil when some of them are gone.
    func events(after index: UInt64) -> [Event]? {
        guard index >= eventsFloor else { return nil }
        if Planted.isActive(.watchEarly) { return events.filter { $0.index >= index } }
        if Planted.isActive(.watchLate) { return events.filter { $0.index > index + 1 } }
        return events.filter { $0.index > index }
    }

    /// Of all that is replicated, whatever the way it came about.
    var digest: UInt64 {
        var sum = mix(applied.index, applied.term, chain, configuration.index)
        for id in configuration.membership.voters { sum = mix(sum, 1, id) }
        for id in configuration.membership.learners { sum = mix(sum, 2, id) }
        for id in configuration.membership.removed { sum = mix(sum, 3, id) }
        for key in values.indices { sum = mix(sum, values[key], versions[key]) }
        for request in answerOrder {
            guard let answer = answers[request] else {
                sum = mix(sum, request, .max)
                continue
            }
            sum = mix(sum, request, answer.index, answer.succeeded ? 1 : 0)
        }
        return sum
    }

    /// What members tell each other of their state.
    var comparable: [UInt8] {
        var writer = ByteWriter()
        writer.put(digest)
        writer.put(dust)
        return writer.bytes
    }
}

func mix(_ values: UInt64...) -> UInt64 {
    var sum: UInt64 = 0x9E37_79B9_7F4A_7C15
    for value in values {
        sum = (sum ^ value) &* 0xFF51_AFD7_ED55_8CCD
        sum ^= sum >> 32
    }
    return sum
}
