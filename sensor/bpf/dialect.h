/* The only difference between the two ways into the kernel: libbpf (objects built beforehand, the kernel's structures read by name) and bcc
 * (BCC is defined; compiled on the node, where headers of another kernel than the running one would give wrong fields in silence, so that
 * none is read: what only a structure holds is 0). bcc takes map calls apart in the source text, so each is a function here, no macro. */
#ifndef HOPGATE_DIALECT_H
#define HOPGATE_DIALECT_H

#ifdef BCC

#include <uapi/linux/bpf.h>
#define PROGRAM(section, name, context) int name(context)
#define bpf_htons(value) ((__u16)__builtin_bswap16(value))
#define bpf_ntohs(value) ((__u16)__builtin_bswap16(value))
#define bpf_ntohl(value) ((__u32)__builtin_bswap32(value))
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#error "the sensor is for little-endian processors"
#endif

#else

#include <linux/bpf.h>
#include <linux/types.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>
#include "kernel_types.h"
#include <bpf/bpf_core_read.h>
#define PROGRAM(section, name, context) \
	SEC(section)                    \
	int name(context)
char LICENSE[] SEC("license") = "Dual BSD/GPL";

#endif

#include "events.h"

#define DESTINATIONS 16384
#define HELLOS 4096

#ifdef BCC

BPF_RINGBUF_OUTPUT(events, EVENTS_PAGES);
BPF_RINGBUF_OUTPUT(payloads, PAYLOADS_PAGES);
BPF_TABLE("percpu_array", __u32, __u64, counts, COUNTS);
BPF_TABLE("lru_hash", struct destination, __u32, destinations, DESTINATIONS);
BPF_TABLE("lru_hash", __u64, struct hello, hellos, HELLOS);

static __always_inline __u64 *count_of(__u32 index)
{
	return counts.lookup(&index);
}

static __always_inline void *reserve_event(void)
{
	return events.ringbuf_reserve(sizeof(struct event));
}

static __always_inline void *reserve_payload(__u64 size)
{
	return payloads.ringbuf_reserve(size);
}

static __always_inline void submit_event(struct event *event)
{
	events.ringbuf_submit(event, 0);
}

static __always_inline void submit_payload(struct payload *payload)
{
	payloads.ringbuf_submit(payload, 0);
}

static __always_inline void discard_payload(struct payload *payload)
{
	payloads.ringbuf_discard(payload, 0);
}

static __always_inline __u32 *find_destination(struct destination *key)
{
	return destinations.lookup(key);
}

static __always_inline long add_destination(struct destination *key, __u32 *value)
{
	return destinations.insert(key, value);
}

static __always_inline struct hello *find_hello(__u64 cookie)
{
	return hellos.lookup(&cookie);
}

static __always_inline void keep_hello(__u64 cookie, struct hello *hello)
{
	hellos.update(&cookie, hello);
}

static __always_inline void drop_hello(__u64 cookie)
{
	hellos.delete(&cookie);
}

/* bcc's own declaration gives 32 bits. */
static __u64 (*socket_cookie)(void *context) = (void *)BPF_FUNC_get_socket_cookie;

static __always_inline __u64 started_ns(void)
{
	return 0;
}

static __always_inline __u32 parent_process(void)
{
	return 0;
}

static __always_inline __u64 current_netns_cookie(void)
{
	return 0;
}

static __always_inline __u64 netns_cookie_of(void *socket, __u64 *scratch)
{
	return 0;
}

static __always_inline __u64 cgroup_of(void *socket, __u64 *scratch)
{
	return 0;
}

/* As the kernel counts: a SYN and a FIN are a byte each. */
static __always_inline __u64 stream_sent(struct bpf_sock_ops *ctx, __u64 *scratch)
{
	return ctx->bytes_acked;
}

static __always_inline __u64 stream_received(struct bpf_sock_ops *ctx, __u64 *scratch)
{
	return ctx->bytes_received;
}

/* The main thread's end stands for the process's. */
static __always_inline int is_last_thread(void)
{
	__u64 both = bpf_get_current_pid_tgid();

	return (__u32)both == both >> 32;
}

#else

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
} events SEC(".maps"), payloads SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, COUNTS);
	__type(key, __u32);
	__type(value, __u64);
} counts SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, DESTINATIONS);
	__type(key, struct destination);
	__type(value, __u32);
} destinations SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, HELLOS);
	__type(key, __u64);
	__type(value, struct hello);
} hellos SEC(".maps");

static __always_inline __u64 *count_of(__u32 index)
{
	return bpf_map_lookup_elem(&counts, &index);
}

static __always_inline void *reserve_event(void)
{
	return bpf_ringbuf_reserve(&events, sizeof(struct event), 0);
}

static __always_inline void *reserve_payload(__u64 size)
{
	return bpf_ringbuf_reserve(&payloads, size, 0);
}

static __always_inline void submit_event(struct event *event)
{
	bpf_ringbuf_submit(event, 0);
}

static __always_inline void submit_payload(struct payload *payload)
{
	bpf_ringbuf_submit(payload, 0);
}

static __always_inline void discard_payload(struct payload *payload)
{
	bpf_ringbuf_discard(payload, 0);
}

static __always_inline __u32 *find_destination(struct destination *key)
{
	return bpf_map_lookup_elem(&destinations, key);
}

static __always_inline long add_destination(struct destination *key, __u32 *value)
{
	return bpf_map_update_elem(&destinations, key, value, BPF_NOEXIST);
}

static __always_inline struct hello *find_hello(__u64 cookie)
{
	return bpf_map_lookup_elem(&hellos, &cookie);
}

static __always_inline void keep_hello(__u64 cookie, struct hello *hello)
{
	bpf_map_update_elem(&hellos, &cookie, hello, BPF_ANY);
}

static __always_inline void drop_hello(__u64 cookie)
{
	bpf_map_delete_elem(&hellos, &cookie);
}

static __always_inline __u64 socket_cookie(void *context)
{
	return bpf_get_socket_cookie(context);
}

static __always_inline struct task_struct *current_task(void)
{
	return (struct task_struct *)bpf_get_current_task();
}

static __always_inline __u64 started_ns(void)
{
	return BPF_CORE_READ(current_task(), group_leader, start_boottime);
}

static __always_inline __u32 parent_process(void)
{
	return BPF_CORE_READ(current_task(), group_leader, real_parent, tgid);
}

static __always_inline __u64 current_netns_cookie(void)
{
	return BPF_CORE_READ(current_task(), nsproxy, net_ns, net_cookie);
}

/* The verifier allows no arithmetic on a socket that a context gives; `scratch`, in a record, turns it into a number. */
static __always_inline struct sock *address_of(void *socket, __u64 *scratch)
{
	*(volatile __u64 *)scratch = (__u64)socket;
	return (struct sock *)*(volatile __u64 *)scratch;
}

static __always_inline __u64 netns_cookie_of(void *socket, __u64 *scratch)
{
	return BPF_CORE_READ(address_of(socket, scratch), __sk_common.skc_net.net, net_cookie);
}

static __always_inline __u64 cgroup_of(void *socket, __u64 *scratch)
{
	struct sock *sock = address_of(socket, scratch);

	if (!bpf_core_field_exists(sock->sk_cgrp_data.cgroup))
		return 0;
	return BPF_CORE_READ(sock, sk_cgrp_data.cgroup, kn, id);
}

/* What was sent at all, acknowledged or not. */
static __always_inline __u64 stream_sent(struct bpf_sock_ops *ctx, __u64 *scratch)
{
	struct tcp_sock *stream = (void *)address_of(ctx->sk, scratch);

	return BPF_CORE_READ(stream, bytes_sent) - BPF_CORE_READ(stream, bytes_retrans);
}

/* include/net/sock.h enum sock_flags */
#define SOCK_DONE 1

/* The kernel counts a FIN as a byte, and marks its arrival. */
static __always_inline __u64 stream_received(struct bpf_sock_ops *ctx, __u64 *scratch)
{
	return ctx->bytes_received - (BPF_CORE_READ(address_of(ctx->sk, scratch), __sk_common.skc_flags) >> SOCK_DONE & 1);
}

static __always_inline int is_last_thread(void)
{
	return BPF_CORE_READ(current_task(), signal, live.counter) == 0;
}

#endif

#endif
