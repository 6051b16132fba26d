/* How an event or a payload gets into its ring; what finds no room is counted. */
#ifndef HOPGATE_TELLING_H
#define HOPGATE_TELLING_H

#include "reading.h"

static __always_inline void add_count(__u32 index)
{
	__u64 *count = count_of(index);

	/* A program may be interrupted by one on the same processor, so that a plain addition would miscount. */
	if (count)
		__sync_fetch_and_add(count, 1);
}

static __always_inline struct event *begin_event(__u8 operation)
{
	struct event *event;

	add_count(EVENTS_TRIED);
	event = reserve_event();
	if (!event) {
		add_count(EVENTS_LOST);
		return 0;
	}
	__builtin_memset(event, 0, sizeof(*event));
	event->operation = operation;
	event->time_ns = bpf_ktime_get_boot_ns();
	return event;
}

/* Who runs now: for hooks in the process's own context. */
static __always_inline void fill_process(struct event *event)
{
	event->process = bpf_get_current_pid_tgid() >> 32;
	event->started_ns = started_ns();
	event->uid = (__u32)bpf_get_current_uid_gid();
	event->cgroup_id = bpf_get_current_cgroup_id();
	bpf_get_current_comm(event->command, sizeof(event->command));
}

static __always_inline struct payload *begin_payload(__u8 kind, __u32 room)
{
	struct payload *payload;

	add_count(PAYLOADS_TRIED);
	payload = reserve_payload(sizeof(struct payload) + room);
	if (!payload) {
		add_count(PAYLOADS_LOST);
		return 0;
	}
	__builtin_memset(payload, 0, sizeof(*payload));
	payload->kind = kind;
	payload->time_ns = bpf_ktime_get_boot_ns();
	return payload;
}

/* Whether this is the first time that `destination` is met; with several processors at it, one of them is told so. */
static __always_inline int is_new(struct destination *destination)
{
	__u32 none = 0;

	return !find_destination(destination) && add_destination(destination, &none) == 0;
}

#endif
