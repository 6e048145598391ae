// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "CLinux.h"
#include <errno.h>
#include <sched.h>
#include <sys/mount.h>

int hm_setns_net(int fd) { return setns(fd, CLONE_NEWNET) ? -errno : 0; }
int hm_unshare_net(void) { return unshare(CLONE_NEWNET) ? -errno : 0; }

int hm_unshare_mounts(void) {
    if (unshare(CLONE_FS | CLONE_NEWNS)) return -errno;
    return mount("none", "/", 0, MS_REC | MS_SLAVE, 0) ? -errno : 0;
}

int hm_spawn_close_from(posix_spawn_file_actions_t *actions, int first) {
    return posix_spawn_file_actions_addclosefrom_np(actions, first);
}
