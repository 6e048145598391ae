// SPDX-License-Identifier: Apache-2.0
import Testing

@testable import Daemon

@Suite struct `Pages of the program` {
    @Test func `only what stands unchanged in a file is let go`() {
        let smaps = """
            55d000000000-55d000100000 r--p 00000000 fe:00 77 /usr/bin/hivemind
            Rss:                1024 kB
            Anonymous:             0 kB
            VmFlags: rd mr mw me
            55d000100000-55d000300000 r-xp 00100000 fe:00 77 /usr/bin/hivemind
            Anonymous:             0 kB
            55d000300000-55d000400000 r--p 00300000 fe:00 77 /usr/bin/hivemind
            Anonymous:           512 kB
            55d000400000-55d000500000 rw-p 00400000 fe:00 77 /usr/bin/hivemind
            Anonymous:             0 kB
            55d000600000-55d000700000 r--s 00000000 fe:00 78 /var/lib/hivemind/state.sqlite-shm
            Anonymous:             0 kB
            7f0000000000-7f0000100000 r--p 00000000 00:00 0
            Anonymous:             0 kB
            7f0000200000-7f0000201000 r-xp 00000000 00:00 0 [vdso]
            Anonymous:             0 kB
            """
        #expect(
            ProgramPages.unchanged(in: smaps) == [
                ProgramPages.Mapping(start: 0x55d0_0000_0000, bytes: 1 << 20),
                ProgramPages.Mapping(start: 0x55d0_0010_0000, bytes: 2 << 20),
            ])
        #expect(ProgramPages.unchanged(in: "").isEmpty)
    }

    @Test func `a program goes on after letting its pages go`() {
        #expect(ProgramPages.release() > 1 << 20)
        #expect((0..<1_000).map { "\($0)" }.joined().count == 2_890)
    }
}
