// SPDX-License-Identifier: Apache-2.0

/// A wall clock that is wrong for the programs started with it, and for nobody else; what measures how long something takes is
/// right. faketime shifts both, and with that every sleep.
public struct ShiftedClock: Sendable {
    private static let source = """
        #define _GNU_SOURCE
        #include <dlfcn.h>
        #include <stdlib.h>
        #include <sys/time.h>
        #include <time.h>
        int clock_gettime(clockid_t id, struct timespec *now) {
            static int (*real)(clockid_t, struct timespec *);
            if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
            const char *shift = getenv("CLOCK_SHIFT_SECONDS");
            int status = real(id, now);
            if (!status && shift && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) now->tv_sec += atol(shift);
            return status;
        }
        int gettimeofday(struct timeval *restrict now, void *restrict zone) {
            struct timespec time;
            int status = clock_gettime(CLOCK_REALTIME, &time);
            if (now) now->tv_sec = time.tv_sec, now->tv_usec = time.tv_nsec / 1000;
            return status;
        }
        time_t time(time_t *now) {
            struct timespec time;
            clock_gettime(CLOCK_REALTIME, &time);
            if (now) *now = time.tv_sec;
            return time.tv_sec;
        }
        """

    /// Put before a command.
    public let command: String

    public init(seconds: Int, in directory: TemporaryDirectory) async throws {
        let (source, library) = (directory.file("clock.c"), directory.file("clock.so"))
        try directory.write(Self.source, to: "clock.c")
        try await Shell.run(["clang", "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"]).checked()
        command = "env LD_PRELOAD=\(library) CLOCK_SHIFT_SECONDS=\(seconds)"
    }
}
