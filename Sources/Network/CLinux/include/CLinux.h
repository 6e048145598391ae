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
/// Gives the kernel back what the allocator keeps free.
void hm_trim_memory(void);
/// Unmaps the pages of the program and its libraries that are as they stand in their files; the first use of one maps it
/// again from the page cache. The bytes of the segments it went over.
size_t hm_release_program_pages(void);
/// In the child every descriptor from `first` on is closed. 0 or an errno.
int hm_spawn_close_from(posix_spawn_file_actions_t *actions, int first);
