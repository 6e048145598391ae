// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "CLinux.h"
#include <errno.h>
#include <link.h>
#include <malloc.h>
#include <sched.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <unistd.h>

int hm_setns_net(int fd) { return setns(fd, CLONE_NEWNET) ? -errno : 0; }
int hm_unshare_net(void) { return unshare(CLONE_NEWNET) ? -errno : 0; }

int hm_unshare_mounts(void) {
    if (unshare(CLONE_FS | CLONE_NEWNS)) return -errno;
    return mount("none", "/", 0, MS_REC | MS_SLAVE, 0) ? -errno : 0;
}

void hm_trim_memory(void) { malloc_trim(0); }

static int release_pages_of(struct dl_phdr_info *object, size_t size, void *bytes) {
    (void)size;
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    for (int i = 0; i < object->dlpi_phnum; i++) {
        const ElfW(Phdr) *segment = &object->dlpi_phdr[i];
        // What may be written holds what the loader relocated there, which no file has.
        if (segment->p_type != PT_LOAD || segment->p_flags & PF_W) continue;
        uintptr_t start = (object->dlpi_addr + segment->p_vaddr + page - 1) / page * page;
        uintptr_t end = (object->dlpi_addr + segment->p_vaddr + segment->p_memsz) / page * page;
        if (start < end && madvise((void *)start, end - start, MADV_DONTNEED) == 0) *(size_t *)bytes += end - start;
    }
    return 0;
}

size_t hm_release_program_pages(void) {
    size_t bytes = 0;
    // Under the loader's lock: nothing is unloaded meanwhile, and what is being loaded is not in its list yet.
    dl_iterate_phdr(release_pages_of, &bytes);
    return bytes;
}

int hm_spawn_close_from(posix_spawn_file_actions_t *actions, int first) {
    return posix_spawn_file_actions_addclosefrom_np(actions, first);
}
