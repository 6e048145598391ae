// SPDX-License-Identifier: Apache-2.0
internal import Crypto
internal import FoundationEssentials
internal import HTTPClient
internal import Model
internal import X509

/// The knocking side of `cluster join`: finds the cluster a token names, makes sure that it is that one, applies.
struct Joining: Sendable {
    static let attemptLimits = HTTPLimits(
        connect: .seconds(3), total: .seconds(15), stall: .seconds(15), bodyBytesMax: 1 << 20)

    static let patience = Duration.seconds(8)

    let token: JoinToken
    let client = HTTPClient()

    /// - Parameter application: everything but the token's part.
    func apply(_ application: JoinApplication) async throws -> JoinWelcome {
        var application = application
        application.tokenId = token.id
        application.secret = Base32.text(token.secret)
        return try await ask("/v1/join", application)
    }

    /// - Parameter question: everything but the token's part.
    func check(_ question: PreflightQuestion) async throws -> PreflightAnswer {
        var question = question
        question.tokenId = token.id
        question.secret = Base32.text(token.secret)
        return try await ask("/v1/join/check", question)
    }

    /// A network that has just come up loses what is said first: nothing is given up before `patience`.
    /// - Returns: what the first node says that answers.
    /// - Throws: `Problem` of the cluster, or saying of every address why it is of no use.
    private func ask<Answer: Decodable>(_ path: String, _ question: some Encodable) async throws -> Answer {
        let body = Array(try JSON.encode(question))
        let end = ContinuousClock.now + Self.patience
        while true {
            var faults: [String] = []
            if let body = try await attempt(path, body, &faults) { return try JSON.decode(Answer.self, from: body) }
            guard ContinuousClock.now < end else {
                throw Problem(
                    .noLeader, "no node of the cluster could be joined through: \(faults.joined(separator: "; "))",
                    hint:
                        "see that one of these addresses is up and that this machine reaches its TCP port, then join again"
                )
            }
            try await Task.sleep(for: .milliseconds(200))
        }
    }

    private func attempt(_ path: String, _ question: [UInt8], _ faults: inout [String]) async throws -> Data? {
        for address in token.addresses {
            let authority: String
            do {
                authority = try await self.authority(at: address)
            } catch {
                // Another address may still be the cluster's; nothing secret was said to this one.
                faults.append("\(address): \(error)")
                continue
            }
            let answer: HTTPResponse
            do {
                answer = try await client.send(
                    HTTPRequest(
                        method: "POST", url: "https://\(address)\(path)",
                        headers: ["Content-Type": "application/json"],
                        body: .bytes(question),
                        limits: Self.attemptLimits, followsRedirects: false, trust: .authority(authority)))
            } catch {
                faults.append("\(address): \(error)")
                continue
            }
            let body = Data(answer.body)
            if answer.status == 200 { return body }
            let problem =
                (try? JSON.decode(Problem.self, from: body))
                ?? Problem(.internal, "\(address) answers with HTTP status \(answer.status)")
            // Anybody else would refuse for the same reason; only being without a leader may pass.
            guard problem.code == .noLeader || problem.code == .busy else { throw problem }
            faults.append("\(address): \(problem.detail)")
        }
        return nil
    }

    /// The authority's certificate, once it is the one the token names.
    private func authority(at address: String) async throws -> String {
        let answer = try await client.send(
            HTTPRequest(
                url: "https://\(address)/v1/authority", limits: Self.attemptLimits, followsRedirects: false,
                trust: .unverified))
        guard answer.status == 200 else { throw Fault("answers with HTTP status \(answer.status)") }
        let authorities = try JSON.decode(AuthorityView.self, from: Data(answer.body)).authorities
        for (place, text) in authorities.enumerated() {
            let certificate = try Certificate(pemEncoded: text)
            guard CertificateAuthority.digest(of: certificate) == token.digest else { continue }
            // The first is the one that issues.
            guard place == 0 else {
                throw Fault("exchanges its authority: a token of the old one is not good any more")
            }
            return text
        }
        throw Fault(
            "is not the cluster of this token, or has exchanged its authority since: the authority has another digest")
    }

    private struct Fault: Error, CustomStringConvertible {
        var description: String
        init(_ description: String) { self.description = description }
    }
}
