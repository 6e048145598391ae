// SPDX-License-Identifier: Apache-2.0
internal import Logging
internal import Model

extension Problem {
    /// What a client is told of `error`. An error nobody classified is logged in full.
    static func from(_ error: any Error, logger: Logger) -> Problem {
        switch error {
        case let problem as Problem:
            return problem
        case let fault as RouteFault:
            return fault.problem
        case let error as any ReasonError:
            return Problem(error.reason)
        case is CancellationError:
            return stoppingProblem
        default:
            logger.error("request failed unexpectedly", metadata: ["error": "\(error)"])
            return Problem(
                .internal, "unexpected error: \(error)", hint: "the daemon's log has more under the request id")
        }
    }

    init(_ reason: Reason) {
        let code: Code =
            switch reason.code {
            case .imageNotFound: .imageNotFound
            case .imageInvalid, .platformUnavailable, .digestMismatch: .imageInvalid
            case .registryUnreachable: .registryUnreachable
            case .registryDenied: .registryDenied
            case .portInUse: .portConflict
            case .runtimeUnavailable: .runtimeUnavailable
            case .deadlineExceeded: .timeout
            case .noSpace: .noSpace
            case .commandNotFound, .commandNotExecutable, .userNotFound, .mountSourceMissing: .invalidSpec
            default: .internal
            }
        self.init(code, reason.message, hint: reason.hint)
    }
}
