// SPDX-License-Identifier: Apache-2.0
#pragma once
/// Moves the calling thread into the network namespace behind `fd`. 0 or -errno.
int hm_setns_net(int fd);
/// Gives the calling thread a new, empty network namespace. 0 or -errno.
int hm_unshare_net(void);
/// Gives the calling thread its own mount table, working directory and root; mounts made in it end with the thread and
/// are never seen outside. 0 or -errno.
int hm_unshare_mounts(void);
