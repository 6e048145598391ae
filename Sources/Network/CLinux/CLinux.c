// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "CLinux.h"
#include <errno.h>
#include <sched.h>

int hm_setns_net(int fd) { return setns(fd, CLONE_NEWNET) ? -errno : 0; }
int hm_unshare_net(void) { return unshare(CLONE_NEWNET) ? -errno : 0; }
