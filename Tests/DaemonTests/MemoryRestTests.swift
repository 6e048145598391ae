// SPDX-License-Identifier: Apache-2.0
import Testing

@testable import Daemon

@Suite struct MemoryRestTests {
    private static let mebibyte = 1 << 20

    private func look(_ quiet: inout QuietMoment, _ mebibytes: Int, busy: Int64 = 1) -> Bool {
        quiet.isDue(
            resident: mebibytes * Self.mebibyte, processorMilliseconds: busy * 50, elapsedMilliseconds: 5_000)
    }

    @Test func `what the start needed is given back when it is over`() {
        var quiet = QuietMoment()
        #expect(!look(&quiet, 70, busy: 40), "under load it would be wanted again at once")
        #expect(!look(&quiet, 70, busy: 10))
        #expect(look(&quiet, 70))
    }

    @Test func `growth counts from what was left, and what always comes back is asked for ever more rarely`() {
        var quiet = QuietMoment()
        #expect(look(&quiet, 70))
        quiet.gaveBack(resident: 30 * Self.mebibyte)
        #expect(!look(&quiet, 60), "not again at once")
        #expect(!look(&quiet, 60, busy: 30))
        #expect(look(&quiet, 60))
        quiet.gaveBack(resident: 30 * Self.mebibyte)
        var times: [Int] = []
        for time in 1...200 where look(&quiet, 40) {
            quiet.gaveBack(resident: 30 * Self.mebibyte)
            times.append(time)
        }
        #expect(times == [4, 12, 28, 52, 76, 100, 124, 148, 172, 196])
        for _ in 0..<30 { #expect(!look(&quiet, 33)) }
        #expect(look(&quiet, 40), "after a rest it is early again")
    }

    @Test func `a program goes on after memory was given back`() {
        let numbers = (0..<1_000).map { "\($0)" }
        MemoryRest.giveBack()
        #expect(numbers.joined().count == 2_890)
        #expect((MemoryRest.residentBytes() ?? 0) > Self.mebibyte)
    }
}
