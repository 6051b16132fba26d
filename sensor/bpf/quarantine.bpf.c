/* Cuts cgroups off: whoever is in a quarantined one, or beneath it, reaches nothing but what is allowed to it. An object of its own, since it
 * outlives the process that loads it. It reads no structure of the kernel, so that it needs no description of the kernel's types. */
#include <linux/bpf.h>
#include <linux/types.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>
#include "reading.h"
#include "quarantine.h"

#define SUBJECTS 4096
#define ALLOWED 16384
/* The root is level 0, and can't be quarantined. Container engines nest less than ten deep; what is deeper is judged by its first 32 levels and
 * by its own cgroup. */
#define LEVELS 32

#define SOCK_STREAM 1
#define SOCK_DGRAM 2
#define MPTCP 262
#define AF_TIPC 30
#define AF_VSOCK 40
#define AF_XDP 44
#define SIGKILL 9

char LICENSE[] SEC("license") = "Dual BSD/GPL";

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, SUBJECTS);
	__type(key, __u64);
	__type(value, struct quarantine);
} quarantined SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, ALLOWED);
	__type(key, struct allowed);
	__type(value, __u8);
} allowed SEC(".maps");

/* The quarantine of the process that runs now; `id` becomes the quarantined cgroup's. */
static __always_inline struct quarantine *current_quarantine(__u64 *id)
{
	struct quarantine *found;
	int level;

	for (level = 1; level <= LEVELS; level++) {
		*id = bpf_get_current_ancestor_cgroup_id(level);
		if (!*id)
			return 0;
		found = bpf_map_lookup_elem(&quarantined, id);
		if (found)
			return found;
	}
	*id = bpf_get_current_cgroup_id();
	return bpf_map_lookup_elem(&quarantined, id);
}

/* As above, of the socket that a packet comes from. */
static __always_inline struct quarantine *quarantine_of(struct __sk_buff *skb, __u64 *id)
{
	struct quarantine *found;
	int level;

	for (level = 1; level <= LEVELS; level++) {
		*id = bpf_skb_ancestor_cgroup_id(skb, level);
		if (!*id)
			return 0;
		found = bpf_map_lookup_elem(&quarantined, id);
		if (found)
			return found;
	}
	*id = bpf_skb_cgroup_id(skb);
	return bpf_map_lookup_elem(&quarantined, id);
}

static __always_inline int judge_address(struct quarantine *found, struct allowed *asked)
{
	if (bpf_map_lookup_elem(&allowed, asked))
		return GO_ON;
	__sync_fetch_and_add(&found->refused_connections, 1);
	return REFUSE;
}

static __always_inline int judge_ip4(struct bpf_sock_addr *ctx)
{
	struct allowed asked = {};
	struct quarantine *found = current_quarantine(&asked.cgroup_id);

	if (!found)
		return GO_ON;
	put_ip4(asked.address, ctx->user_ip4);
	asked.port = bpf_ntohs(ctx->user_port);
	asked.protocol = ctx->protocol;
	return judge_address(found, &asked);
}

static __always_inline int judge_ip6(struct bpf_sock_addr *ctx)
{
	struct allowed asked = {};
	struct quarantine *found = current_quarantine(&asked.cgroup_id);

	if (!found)
		return GO_ON;
	put_ip6(asked.address, ctx->user_ip6[0], ctx->user_ip6[1], ctx->user_ip6[2], ctx->user_ip6[3]);
	asked.port = bpf_ntohs(ctx->user_port);
	asked.protocol = ctx->protocol;
	return judge_address(found, &asked);
}

SEC("cgroup/connect4")
int cut_connect4(struct bpf_sock_addr *ctx)
{
	return judge_ip4(ctx);
}

SEC("cgroup/connect6")
int cut_connect6(struct bpf_sock_addr *ctx)
{
	return judge_ip6(ctx);
}

SEC("cgroup/sendmsg4")
int cut_sendmsg4(struct bpf_sock_addr *ctx)
{
	return judge_ip4(ctx);
}

SEC("cgroup/sendmsg6")
int cut_sendmsg6(struct bpf_sock_addr *ctx)
{
	return judge_ip6(ctx);
}

/* net/ipv4/af_inet.c inet_create, net/ipv6/af_inet6.c inet6_create. What is neither TCP nor UDP (raw, ping, SCTP) is refused as such. */
SEC("cgroup/sock_create")
int cut_socket(struct bpf_sock *ctx)
{
	struct quarantine *found;
	__u64 id;

	if (ctx->type == SOCK_STREAM && (ctx->protocol == TCP || ctx->protocol == MPTCP))
		return GO_ON;
	if (ctx->type == SOCK_DGRAM && ctx->protocol == UDP)
		return GO_ON;
	found = current_quarantine(&id);
	if (!found)
		return GO_ON;
	__sync_fetch_and_add(&found->refused_sockets, 1);
	return REFUSE;
}

/* Also of connections that stood before, and of sockets that others were handed: by the socket's cgroup, which is its maker's. */
SEC("cgroup_skb/egress")
int cut_packet(struct __sk_buff *skb)
{
	struct allowed asked = {};
	struct packet packet = {};
	struct quarantine *found = quarantine_of(skb, &asked.cgroup_id);

	if (!found)
		return GO_ON;
	if (read_packet(skb, &packet)) {
		__builtin_memcpy(asked.address, packet.target, 16);
		asked.port = packet.target_port;
		asked.protocol = packet.protocol;
		if (bpf_map_lookup_elem(&allowed, &asked))
			return GO_ON;
	}
	__sync_fetch_and_add(&found->dropped_packets, 1);
	return REFUSE;
}

/* net/socket.c socket(2). No cgroup hook sees sockets of these families, and nothing but the BPF LSM could refuse them: who asks for one is
 * killed before the call returns to it. Not for those asked for through io_uring. From 5.3, with CONFIG_FTRACE_SYSCALLS. */
SEC("tracepoint/syscalls/sys_enter_socket")
int cut_family(struct call_arguments *ctx)
{
	struct quarantine *found;
	__u64 id;

	switch ((int)ctx->arguments[0]) {
	case AF_PACKET:
	case AF_TIPC:
	case AF_VSOCK:
	case AF_XDP:
		break;
	default:
		return 0;
	}
	found = current_quarantine(&id);
	if (!found)
		return 0;
	__sync_fetch_and_add(&found->refused_sockets, 1);
	bpf_send_signal(SIGKILL);
	return 0;
}
