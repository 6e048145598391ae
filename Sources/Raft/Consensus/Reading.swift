// SPDX-License-Identifier: Apache-2.0

/// Reads this member asked its leader about.
struct ForwardedReads: Sendable {
    private struct Asked: Sendable {
        var id: UInt64
        var tokens: [UInt64]
        var age: Int
    }

    private var asked: [Asked] = []
    private var nextID: UInt64
    /// Not sent yet: those of one step share a question.
    private(set) var waiting: [UInt64] = []

    static let tokensMax = 20_000

    /// - Parameter after: questions are numbered from here on; other numbers than in earlier runs of this member.
    init(after: UInt64) {
        nextID = after
    }

    var isFull: Bool { waiting.count + asked.reduce(0) { $0 + $1.tokens.count } >= Self.tokensMax }

    mutating func ask(_ token: UInt64) {
        waiting.append(token)
    }

    /// The id of the question that stands for everybody waiting.
    mutating func begin() -> UInt64? {
        guard !waiting.isEmpty else { return nil }
        nextID += 1
        asked.append(Asked(id: nextID, tokens: waiting, age: 0))
        waiting = []
        return nextID
    }

    mutating func answered(_ id: UInt64, index: UInt64?, results: inout [ReadResult]) {
        guard let place = asked.firstIndex(where: { $0.id == id }) else { return }
        for token in asked.remove(at: place).tokens { results.append(ReadResult(token: token, index: index)) }
    }

    mutating func tick(limit: Int, results: inout [ReadResult]) {
        for place in asked.indices { asked[place].age += 1 }
        while let first = asked.first, first.age > limit { answered(first.id, index: nil, results: &results) }
    }

    mutating func abandon(results: inout [ReadResult]) {
        for token in waiting { results.append(ReadResult(token: token, index: nil)) }
        waiting = []
        while let first = asked.first { answered(first.id, index: nil, results: &results) }
    }
}

// Linearizable reads. Source: Ongaro, 6.4.
extension RaftNode {
    mutating func read(_ token: UInt64) {
        if isLeader, !readIndex.isFull {
            readIndex.ask(.local(token: token))
        } else if !isLeader, leader != nil, !forwardedReads.isFull {
            forwardedReads.ask(token)
        } else {
            staged.output.reads.append(ReadResult(token: token, index: nil))
        }
    }

    mutating func answerRead(from member: MemberID, id readID: UInt64) {
        guard isLeader, !readIndex.isFull else { return send(.readIndexReply(id: readID, index: nil), to: member) }
        readIndex.ask(.remote(member, id: readID))
    }

    /// Once a step: one round, or one question to the leader, for everything that came in it.
    mutating func beginReads() {
        if isLeader {
            // Also without an answer: a round may need fewer voters than when it began.
            if readIndex.isUnderWay, !Planted.isActive(.readRoundHangs) { confirmReads() }
            guard isReady || Planted.isActive(.readWithoutOwnEntry), let round = readIndex.begin(commit: commitIndex)
            else { return }
            sendHeartbeats(round: round)
            confirmReads()
        } else if !forwardedReads.waiting.isEmpty {
            guard let leader else { return forwardedReads.abandon(results: &staged.output.reads) }
            if let readID = forwardedReads.begin() { send(.readIndex(id: readID), to: leader) }
        }
    }

    /// Ends the round a quorum has confirmed, and begins the next for those who came meanwhile.
    mutating func confirmReads() {
        let rounds = members.voters.map { $0 == id ? readIndex.lastRound : progress[$0]?.round ?? 0 }.sorted(by: >)
        guard rounds.count >= members.quorum, let confirmed = readIndex.confirm(rounds[members.quorum - 1]) else {
            return
        }
        for asker in confirmed.askers {
            switch asker {
            case .local(let token): staged.output.reads.append(ReadResult(token: token, index: confirmed.index))
            case .remote(let member, let readID):
                send(.readIndexReply(id: readID, index: confirmed.index), to: member)
            }
        }
    }

    mutating func refuseRead(_ asker: ReadIndex.Asker) {
        switch asker {
        case .local(let token): staged.output.reads.append(ReadResult(token: token, index: nil))
        case .remote(let member, let readID): send(.readIndexReply(id: readID, index: nil), to: member)
        }
    }
}
