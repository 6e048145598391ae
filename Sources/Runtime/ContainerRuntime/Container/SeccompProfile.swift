// SPDX-License-Identifier: Apache-2.0
internal import CSeccomp

/// The system calls a container may make: Docker's default profile, an allow-list; everything else fails with EPERM.
///
/// Calls that are only of use with a capability are allowed when that capability is granted.
/// Source: the default profile of Docker Engine 24.
enum SeccompProfile {
    /// - Parameters:
    ///   - capabilities: what the container was granted.
    ///   - isKnown: whether this machine has a call of that name; unknown ones are left out.
    /// - Complexity: about 400 name look-ups, 0.1 ms.
    static func make(
        capabilities: Set<String>, isKnown: (String) -> Bool = Self.isKnown
    ) -> OCIDocument.Seccomp {
        typealias Rule = OCIDocument.Seccomp.Rule
        var names = Set(always)
        for (capability, extra) in byCapability where capabilities.contains(capability) { names.formUnion(extra) }
        var rules = [Rule(names: names.filter(isKnown).sorted(), action: "SCMP_ACT_ALLOW")]
        for value in personalities {
            rules.append(
                Rule(
                    names: ["personality"], action: "SCMP_ACT_ALLOW",
                    args: [.init(index: 0, value: value, op: "SCMP_CMP_EQ")]))
        }
        if !capabilities.contains("CAP_SYS_ADMIN") {
            // Threads and processes, but no new namespaces. clone3 hides its flags behind a pointer: ENOSYS makes libc
            // fall back to clone.
            rules.append(
                Rule(
                    names: ["clone"], action: "SCMP_ACT_ALLOW",
                    args: [.init(index: 0, value: namespaceFlags, valueTwo: 0, op: "SCMP_CMP_MASKED_EQ")]))
            rules.append(Rule(names: ["clone3"], action: "SCMP_ACT_ERRNO", errnoRet: 38))
        }
        // Sockets of every family but AF_VSOCK, which reaches the hypervisor.
        rules.append(
            Rule(
                names: ["socket"], action: "SCMP_ACT_ALLOW", args: [.init(index: 0, value: 40, op: "SCMP_CMP_NE")]))
        return OCIDocument.Seccomp(
            defaultAction: "SCMP_ACT_ERRNO", defaultErrnoRet: 1, architectures: architectures, syscalls: rules)
    }

    /// Whether libseccomp knows the call on this architecture.
    static func isKnown(_ name: String) -> Bool { seccomp_syscall_resolve_name(name) != -1 }

    #if arch(arm64)
        static let architectures = ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]
        private static let native = [
            "arm_fadvise64_64", "arm_sync_file_range", "sync_file_range2", "breakpoint", "cacheflush", "set_tls",
        ]
    #else
        static let architectures = ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]
        private static let native = ["arch_prctl", "modify_ldt"]
    #endif

    /// CLONE_NEW* without NEWTIME, which shares its bit with the exit signal.
    private static let namespaceFlags: UInt64 = 0x7E02_0000
    /// Linux, Linux with 16-bit uids, SVr4-like address layouts, and the question what it is.
    private static let personalities: [UInt64] = [0x0, 0x0008, 0x20000, 0x20008, 0xFFFF_FFFF]

    private static func list(_ text: String) -> [String] { text.split(whereSeparator: \.isWhitespace).map(String.init) }

    private static let always: [String] =
        native
        + list(
            """
            accept accept4 access adjtimex alarm bind brk cachestat capget capset chdir chmod chown chown32
            clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64
            clock_nanosleep clock_nanosleep_time64 close close_range connect copy_file_range creat dup dup2 dup3
            epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old
            eventfd eventfd2 execve execveat exit exit_group faccessat faccessat2 fadvise64 fadvise64_64 fallocate
            fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr
            flistxattr flock fork fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate
            ftruncate64 futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake futimesat get_robust_list
            get_thread_area getcpu getcwd getdents getdents64 getegid getegid32 geteuid geteuid32 getgid getgid32
            getgroups getgroups32 getitimer getpeername getpgid getpgrp getpid getppid getpriority getrandom getresgid
            getresgid32 getresuid getresuid32 getrlimit getrusage getsid getsockname getsockopt gettid gettimeofday
            getuid getuid32 getxattr inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel io_destroy
            io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit ioctl ioprio_get ioprio_set ipc kill
            landlock_add_rule landlock_create_ruleset landlock_restrict_self lchown lchown32 lgetxattr link linkat
            listen listxattr llistxattr lremovexattr lseek lsetxattr lstat lstat64 madvise map_shadow_stack membarrier
            memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap mmap2 mprotect
            mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64
            mq_unlink mremap mseal msgctl msgget msgrcv msgsnd msync munlock munlockall munmap name_to_handle_at
            nanosleep newfstatat open openat openat2 pause pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc pkey_free
            pkey_mprotect poll ppoll ppoll_time64 prctl pread64 preadv preadv2 prlimit64 process_mrelease
            process_vm_readv process_vm_writev pselect6 pselect6_time64 ptrace pwrite64 pwritev pwritev2 read readahead
            readlink readlinkat readv recv recvfrom recvmmsg recvmmsg_time64 recvmsg remap_file_pages removexattr rename
            renameat renameat2 restart_syscall rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo
            rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sched_get_priority_max
            sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler
            sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam
            sched_setscheduler sched_yield seccomp select semctl semget semop semtimedop semtimedop_time64 send sendfile
            sendfile64 sendmmsg sendmsg sendto set_robust_list set_thread_area set_tid_address setfsgid setfsgid32
            setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 setitimer setpgid setpriority setregid setregid32
            setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 setrlimit setsid setsockopt setuid setuid32
            setxattr shmat shmctl shmdt shmget shutdown sigaltstack signalfd signalfd4 sigprocmask sigreturn
            socketcall socketpair splice stat stat64 statfs statfs64 statx symlink symlinkat sync sync_file_range
            syncfs sysinfo tee tgkill time timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64
            timer_settime timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime
            timerfd_settime64 times tkill truncate truncate64 ugetrlimit umask uname unlink unlinkat utime utimensat
            utimensat_time64 utimes vfork vmsplice wait4 waitid waitpid write writev
            """)

    private static let byCapability: [(String, [String])] = [
        ("CAP_BPF", list("bpf")),
        ("CAP_DAC_READ_SEARCH", list("open_by_handle_at")),
        ("CAP_PERFMON", list("perf_event_open")),
        (
            "CAP_SYS_ADMIN",
            list(
                """
                bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie mount mount_setattr
                move_mount open_tree perf_event_open quotactl quotactl_fd setdomainname sethostname setns syslog umount
                umount2 unshare
                """)
        ),
        ("CAP_SYS_BOOT", list("reboot")),
        ("CAP_SYS_CHROOT", list("chroot")),
        ("CAP_SYS_MODULE", list("delete_module finit_module init_module")),
        ("CAP_SYS_NICE", list("get_mempolicy mbind set_mempolicy set_mempolicy_home_node")),
        ("CAP_SYS_PACCT", list("acct")),
        ("CAP_SYS_PTRACE", list("kcmp pidfd_getfd process_madvise")),
        ("CAP_SYS_RAWIO", list("ioperm iopl")),
        ("CAP_SYS_TIME", list("clock_settime clock_settime64 settimeofday stime")),
        ("CAP_SYS_TTY_CONFIG", list("vhangup")),
        ("CAP_SYSLOG", list("syslog")),
    ]
}
