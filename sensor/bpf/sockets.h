/* Sockets: what is asked for, what stands, what ends. */
#ifndef HOPGATE_SOCKETS_H
#define HOPGATE_SOCKETS_H

#define SOCK_RAW 3

static __always_inline struct event *begin_asked(struct bpf_sock_addr *ctx, __u64 cookie)
{
	struct event *event = begin_event(CONNECT);

	if (!event)
		return 0;
	fill_process(event);
	event->cookie = cookie;
	event->netns_cookie = bpf_get_netns_cookie(ctx);
	event->family = ctx->family;
	event->protocol = ctx->protocol;
	event->remote_port = bpf_ntohs(ctx->user_port);
	return event;
}

/* net/ipv4/tcp_ipv4.c tcp_v4_pre_connect, net/ipv4/datagram.c through udp_pre_connect: before the kernel acts on connect(2), also for TCP Fast
 * Open and io_uring. From 4.17, with the netns cookie from 5.7. A second connect(2) on a socket under way does not come here. */
PROGRAM("cgroup/connect4", connect4, struct bpf_sock_addr *ctx)
{
	struct event *event = begin_asked(ctx, socket_cookie(ctx));

	if (!event)
		return GO_ON;
	put_ip4(event->remote, ctx->user_ip4);
	submit_event(event);
	return GO_ON;
}

/* net/ipv6/tcp_ipv6.c tcp_v6_pre_connect, net/ipv6/udp.c udpv6_pre_connect: as above, also for IPv4 spelt as mapped IPv6. From 4.17. */
PROGRAM("cgroup/connect6", connect6, struct bpf_sock_addr *ctx)
{
	struct event *event = begin_asked(ctx, socket_cookie(ctx));

	if (!event)
		return GO_ON;
	put_ip6(event->remote, ctx->user_ip6[0], ctx->user_ip6[1], ctx->user_ip6[2], ctx->user_ip6[3]);
	submit_event(event);
	return GO_ON;
}

static __always_inline void tell_datagram(struct bpf_sock_addr *ctx, struct destination *destination)
{
	struct event *event;

	destination->cookie = socket_cookie(ctx);
	destination->port = bpf_ntohs(ctx->user_port);
	if (!is_new(destination))
		return;
	event = begin_asked(ctx, destination->cookie);
	if (!event)
		return;
	event->flags = DATAGRAM_HOOK;
	__builtin_memcpy(event->remote, destination->address, 16);
	submit_event(event);
}

/* net/ipv4/udp.c udp_sendmsg: a datagram with an address of its own, from an unconnected socket. IPv6 sockets with a mapped address come here too.
 * From 4.18. */
PROGRAM("cgroup/sendmsg4", sendmsg4, struct bpf_sock_addr *ctx)
{
	struct destination destination = {};
	struct bpf_sock *socket = ctx->sk;

	/* The kernel gives a datagram of a connected IPv6 socket its mapped address anew, so that it comes here; connect6 told of it. */
	if (socket && socket->dst_ip4 == ctx->user_ip4 && socket->dst_port == (__u16)ctx->user_port)
		return GO_ON;
	put_ip4(destination.address, ctx->user_ip4);
	tell_datagram(ctx, &destination);
	return GO_ON;
}

/* net/ipv6/udp.c udpv6_sendmsg: as above. From 4.18. */
PROGRAM("cgroup/sendmsg6", sendmsg6, struct bpf_sock_addr *ctx)
{
	struct destination destination = {};

	put_ip6(destination.address, ctx->user_ip6[0], ctx->user_ip6[1], ctx->user_ip6[2], ctx->user_ip6[3]);
	tell_datagram(ctx, &destination);
	return GO_ON;
}

/* net/ipv4/af_inet.c inet_create, net/ipv6/af_inet6.c inet6_create: socket(2) of these two families. From 4.10, who runs from 5.7. */
PROGRAM("cgroup/sock_create", socket_made, struct bpf_sock *ctx)
{
	struct event *event;

	if (ctx->type != SOCK_RAW)
		return GO_ON;
	event = begin_event(SPECIAL_SOCKET);
	if (!event)
		return GO_ON;
	fill_process(event);
	event->cookie = socket_cookie(ctx);
	event->netns_cookie = bpf_get_netns_cookie(ctx);
	event->family = ctx->family;
	event->protocol = ctx->protocol;
	submit_event(event);
	return GO_ON;
}

static __always_inline struct event *begin_standing(struct bpf_sock_ops *ctx, __u8 operation)
{
	struct event *event = begin_event(operation);
	struct bpf_sock *socket;

	if (!event)
		return 0;
	event->cookie = socket_cookie(ctx);
	event->netns_cookie = bpf_get_netns_cookie(ctx);
	socket = ctx->sk;
	if (socket)
		event->cgroup_id = cgroup_of(socket, &event->cgroup_id);
	event->family = ctx->family;
	event->protocol = TCP;
	event->local_port = ctx->local_port;
	event->remote_port = bpf_ntohl(ctx->remote_port);
	if (ctx->family == AF_INET6) {
		put_ip6(event->local, ctx->local_ip6[0], ctx->local_ip6[1], ctx->local_ip6[2], ctx->local_ip6[3]);
		put_ip6(event->remote, ctx->remote_ip6[0], ctx->remote_ip6[1], ctx->remote_ip6[2], ctx->remote_ip6[3]);
		APART();
	} else {
		put_ip4(event->local, ctx->local_ip4);
		put_ip4(event->remote, ctx->remote_ip4);
	}
	return event;
}

static __always_inline void tell_standing(struct bpf_sock_ops *ctx, __u8 operation)
{
	struct event *event;

	/* What others asked for on this socket stays asked for. */
	bpf_sock_ops_cb_flags_set(ctx, ctx->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_STATE_CB_FLAG);
	event = begin_standing(ctx, operation);
	if (event)
		submit_event(event);
}

static __always_inline void tell_closed(struct bpf_sock_ops *ctx)
{
	struct event *event = begin_standing(ctx, CLOSED);

	if (!event)
		return;
	event->sent_bytes = stream_sent(ctx, &event->sent_bytes);
	event->received_bytes = stream_received(ctx, &event->received_bytes);
	submit_event(event);
}

/* net/ipv4/tcp_input.c tcp_init_transfer: a connection stands, at either end. From 4.13. net/ipv4/tcp.c tcp_set_state: its end, for those that were
 * seen to stand. From 4.16. Both mostly in soft interrupts: no process is known. The netns cookie is from 5.15. */
PROGRAM("sockops", socket_stands, struct bpf_sock_ops *ctx)
{
	switch (ctx->op) {
	case BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB:
		tell_standing(ctx, ESTABLISHED);
		break;
	case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB:
		tell_standing(ctx, ACCEPTED);
		break;
	case BPF_SOCK_OPS_STATE_CB:
		if (ctx->args[1] == BPF_TCP_CLOSE)
			tell_closed(ctx);
		break;
	}
	return GO_ON;
}

#endif
