/* Processes: what they execute, whom they make, when they end, and what opens a way past other hooks. The structures are those of the
 * tracepoints' `format` files; the fields that are read have not moved since the versions named. */
#ifndef HOPGATE_PROCESSES_H
#define HOPGATE_PROCESSES_H

#define CLONE_THREAD 0x00010000

struct executed_arguments {
	__u64 common;
	__u32 filename;
	__s32 process, old_process;
};

struct new_task_arguments {
	__u64 common;
	__s32 process;
	char command[16];
	__u64 clone_flags;
};

static __always_inline struct event *begin_process(__u8 operation)
{
	struct event *event = begin_event(operation);

	if (!event)
		return 0;
	fill_process(event);
	event->netns_cookie = current_netns_cookie();
	return event;
}

static __always_inline void tell_file(void *ctx, __u32 place, const __u32 room)
{
	struct payload *payload = begin_payload(KIND_EXECUTED, room);
	long size;

	if (!payload)
		return;
	payload->process = bpf_get_current_pid_tgid() >> 32;
	payload->cgroup_id = bpf_get_current_cgroup_id();
	size = bpf_probe_read_kernel_str(payload + 1, room, ctx + (place & 0xffff));
	if (size <= 0) {
		discard_payload(payload);
		return;
	}
	payload->flags = (place >> 16) > room ? CUT : 0;
	payload->size = size - 1;
	submit_payload(payload);
}

/* fs/exec.c exec_binprm: the program is loaded, none of it has run. From 3.4. */
PROGRAM("tracepoint/sched/sched_process_exec", executed, struct executed_arguments *ctx)
{
	struct event *event = begin_process(EXECUTED);
	__u32 place = ctx->filename;

	if (event) {
		event->other_process = parent_process();
		submit_event(event);
	}
	if ((place >> 16) <= 512)
		tell_file(ctx, place, 512);
	else
		tell_file(ctx, place, 4096);
	return 0;
}

/* kernel/fork.c copy_process: the child is made and has not run. From 3.4. */
PROGRAM("tracepoint/task/task_newtask", forked, struct new_task_arguments *ctx)
{
	struct event *event;

	if (ctx->clone_flags & CLONE_THREAD)
		return 0;
	event = begin_process(FORKED);
	if (!event)
		return 0;
	event->other_process = ctx->process;
	submit_event(event);
	return 0;
}

/* kernel/exit.c do_exit: of each thread, after the process counted it out. From 2.6.28. */
PROGRAM("tracepoint/sched/sched_process_exit", exited, void *ctx)
{
	struct event *event;

	if (!is_last_thread())
		return 0;
	event = begin_event(EXITED);
	if (!event)
		return 0;
	fill_process(event);
	submit_event(event);
	return 0;
}

/* net/socket.c socket(2), for packet sockets, which no cgroup hook sees. Not for those asked for through io_uring. From 2.6.32, with
 * CONFIG_FTRACE_SYSCALLS. */
PROGRAM("tracepoint/syscalls/sys_enter_socket", packet_socket, struct call_arguments *ctx)
{
	struct event *event;

	if (ctx->arguments[0] != AF_PACKET)
		return 0;
	event = begin_process(SPECIAL_SOCKET);
	if (!event)
		return 0;
	event->family = AF_PACKET;
	event->protocol = bpf_ntohs(ctx->arguments[2]);
	submit_event(event);
	return 0;
}

/* io_uring/io_uring.c io_uring_setup(2). From 5.1, with CONFIG_FTRACE_SYSCALLS. */
PROGRAM("tracepoint/syscalls/sys_enter_io_uring_setup", ring_made, struct call_arguments *ctx)
{
	struct event *event = begin_process(RING_MADE);

	if (event)
		submit_event(event);
	return 0;
}

#endif
