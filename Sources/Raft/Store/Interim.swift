// SPDX-License-Identifier: Apache-2.0
public import Model
public import Raft
extension Command { public static func stamp(_ bytes: inout [UInt8], at: Timestamp) {} }
extension MetaRow { public var configuration: ConfigurationPoint { ConfigurationPoint(index: 0, membership: Membership(voters: [1])) } }
extension StateMachine { public struct NoSpace: Error {} }
