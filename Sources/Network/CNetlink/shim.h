// SPDX-License-Identifier: Apache-2.0
#pragma once
// Before the kernel's headers: they leave out what it declares.
#include <netinet/in.h>
#include <linux/if_link.h>
#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <linux/neighbour.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/xfrm.h>
#include <netlink/netlink.h>
#include <netlink/socket.h>
#include <netlink/errno.h>
#include <netlink/handlers.h>
#include <netlink/msg.h>
#include <netlink/attr.h>
#include <netlink/cache.h>
#include <netlink/route/link.h>
#include <netlink/route/addr.h>
#include <netlink/route/route.h>
#include <netlink/route/nexthop.h>
#include <netlink/route/neighbour.h>
#include <netlink/route/link/veth.h>
#include <netlink/route/link/vxlan.h>
#include <netlink/netfilter/nfnl.h>
#include <netlink/netfilter/ct.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>

/// What the kernel said about the last refused request: libnl keeps only a lossy translation of it.
struct hm_nl_error {
    int code;       // errno, positive; 0 when the kernel refused nothing
    char text[200]; // extended acknowledgement, may be empty
};

static inline int hm_nl_on_error(struct sockaddr_nl *peer, struct nlmsgerr *error, void *context) {
    (void)peer;
    struct hm_nl_error *out = (struct hm_nl_error *)context;
    struct nlmsghdr *header = (struct nlmsghdr *)((char *)error - NLMSG_HDRLEN);
    out->code = -error->error;
    out->text[0] = 0;
    if (header->nlmsg_flags & NLM_F_ACK_TLVS) {
        size_t skip = sizeof *error;
        if (!(header->nlmsg_flags & NLM_F_CAPPED)) skip += error->msg.nlmsg_len - sizeof(struct nlmsghdr);
        int rest = (int)header->nlmsg_len - (int)(NLMSG_HDRLEN + skip);
        for (struct nlattr *at = (struct nlattr *)((char *)error + skip); nla_ok(at, rest); at = nla_next(at, &rest))
            if (nla_type(at) == NLMSGERR_ATTR_MSG) {
                size_t length = (size_t)nla_len(at);
                if (length > sizeof out->text - 1) length = sizeof out->text - 1;
                memcpy(out->text, nla_data(at), length);
                out->text[length] = 0;
            }
    }
    return -nl_syserr2nlerr(error->error);
}

/// Connected socket options of ours: extended acknowledgements kept in `out` (which must outlive the socket), large
/// buffers for dumps, and an end to waiting for an answer.
static inline int hm_nl_configure(struct nl_sock *socket, struct hm_nl_error *out, int timeout_seconds) {
    int one = 1, fd = nl_socket_get_fd(socket);
    struct timeval wait = {.tv_sec = timeout_seconds};
    setsockopt(fd, SOL_NETLINK, NETLINK_EXT_ACK, &one, sizeof one);
    setsockopt(fd, SOL_NETLINK, NETLINK_CAP_ACK, &one, sizeof one);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait);
    nl_socket_set_buffer_size(socket, 1 << 20, 1 << 20);
    return nl_socket_modify_err_cb(socket, NL_CB_CUSTOM, hm_nl_on_error, out);
}
