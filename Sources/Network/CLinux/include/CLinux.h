// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <spawn.h>
/// Moves the calling thread into the network namespace behind `fd`. 0 or -errno.
int hm_setns_net(int fd);
/// Gives the calling thread a new, empty network namespace. 0 or -errno.
int hm_unshare_net(void);
/// Gives the calling thread its own mount table, working directory and root; mounts made in it end with the thread and
/// are never seen outside. 0 or -errno.
int hm_unshare_mounts(void);
/// In the child every descriptor from `first` on is closed. 0 or an errno.
int hm_spawn_close_from(posix_spawn_file_actions_t *actions, int first);
