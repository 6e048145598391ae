// SPDX-License-Identifier: Apache-2.0
import Testing

@testable import Daemon

@Suite struct `Pages of the program` {
    @Test func `a program goes on after letting its pages go, and after letting them go again`() {
        for _ in 0..<3 {
            // libc alone has more, the tests far more.
            #expect(ProgramPages.release() > 1 << 20)
            #expect((0..<1_000).map { "\($0)" }.joined().count == 2_890)
        }
    }
}
