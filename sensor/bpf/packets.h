/* Packets at the cgroup hooks: above segmentation and, on the way out, after NAT. */
#ifndef HOPGATE_PACKETS_H
#define HOPGATE_PACKETS_H

#define TLS_HANDSHAKE 0x16
#define TLS_CLIENT_HELLO 1
/* RFC 8446 gives no bound for a hello; what is longer than this is told cut. */
#define MOST_HELLO_BYTES 16384
#define MOST_HELLO_PIECES 128
/* Heads of the records that a hello is spread over, beside the first. */
#define RECORD_HEADS 64
#define MOST_HTTP_BYTES 1024
#define MOST_DNS_BYTES 4096
#define PIECE_BYTES 4096
#define PIECES_OF_A_PACKET 4
/* RFC 9000 14.1 */
#define LEAST_QUIC_BYTES 1200
#define MOST_QUIC_PACKETS 8
/* Past so many segments no hello begins or goes on. */
#define MOST_SEGMENTS 256
#define DNS_PORT 53

enum hello_state {
	GOES_ON = 0,
	AFTER_CONNECT = 1,
};

/* One piece in a record of `room` bytes, a power of two: a record's size must be known when the program is loaded. */
static __always_inline void tell_in(struct __sk_buff *skb, struct packet *packet, __u8 kind, __u8 flags, __u32 done, __u64 size, const __u32 room)
{
	struct payload *payload = begin_payload(kind, room);
	int inward = kind == KIND_DNS;

	if (!payload)
		return;
	payload->family = packet->family;
	payload->flags = flags;
	payload->sequence = packet->sequence + done;
	payload->cookie = socket_cookie(skb);
	payload->cgroup_id = bpf_skb_cgroup_id(skb);
	__builtin_memcpy(inward ? payload->remote : payload->local, packet->source, 16);
	__builtin_memcpy(inward ? payload->local : payload->remote, packet->target, 16);
	payload->local_port = inward ? packet->target_port : packet->source_port;
	payload->remote_port = inward ? packet->source_port : packet->target_port;
	payload->protocol = packet->protocol;
	/* The compiler may not know that the size is in bounds, the verifier must. */
	size -= 1;
	asm volatile("%0 &= %1" : "+r"(size) : "i"(room - 1));
	size += 1;
	payload->size = size;
	if (bpf_skb_load_bytes(skb, packet->payload + done, payload + 1, size))
		discard_payload(payload);
	else
		submit_payload(payload);
}

/* The first `length` bytes of what the packet carries, in as many pieces as it takes. */
static __always_inline void tell_bytes(struct __sk_buff *skb, struct packet *packet, __u8 kind, __u8 flags, __u32 length)
{
	__u32 done = 0;
	int i;

#pragma unroll
	for (i = 0; i < PIECES_OF_A_PACKET; i++) {
		__u32 size = length - done;

		if (done >= length)
			return;
		if (size <= 512)
			tell_in(skb, packet, kind, flags, done, size, 512);
		else if (size <= 2048)
			tell_in(skb, packet, kind, flags, done, size, 2048);
		else
			tell_in(skb, packet, kind, flags, done, size > PIECE_BYTES ? PIECE_BYTES : size, PIECE_BYTES);
		done += PIECE_BYTES;
	}
}

static __always_inline void tell_sent(struct __sk_buff *skb, struct packet *packet, struct bpf_sock *socket)
{
	struct event *event = begin_event(SENT);

	if (!event)
		return;
	event->cookie = socket_cookie(skb);
	event->cgroup_id = bpf_skb_cgroup_id(skb);
	event->netns_cookie = netns_cookie_of(socket, &event->netns_cookie);
	event->uid = bpf_get_socket_uid(skb);
	event->family = socket->family;
	event->protocol = packet->protocol;
	event->interface = skb->ifindex;
	__builtin_memcpy(event->remote, packet->target, 16);
	__builtin_memcpy(event->local, packet->source, 16);
	event->remote_port = packet->target_port;
	event->local_port = packet->source_port;
	if (socket->family == AF_INET6) {
		put_ip6(event->asked, socket->dst_ip6[0], socket->dst_ip6[1], socket->dst_ip6[2], socket->dst_ip6[3]);
		APART();
	} else {
		put_ip4(event->asked, socket->dst_ip4);
	}
	event->asked_port = bpf_ntohs(socket->dst_port);
	submit_event(event);
}

static __always_inline int is_http(__u8 *head)
{
	__u32 word;

	__builtin_memcpy(&word, head, 4);
	return word == *(__u32 *)"GET " || word == *(__u32 *)"POST" || word == *(__u32 *)"PUT " || word == *(__u32 *)"HEAD" ||
	       word == *(__u32 *)"DELE" || word == *(__u32 *)"OPTI" || word == *(__u32 *)"PATC" || word == *(__u32 *)"CONN" ||
	       word == *(__u32 *)"PRI ";
}

static __always_inline __u32 hello_bytes(__u8 *head, __u32 read)
{
	__u32 length;

	if (read < 9)
		return MOST_HELLO_BYTES;
	length = ((__u32)head[6] << 16 | (__u32)head[7] << 8 | head[8]) + 9 + RECORD_HEADS;
	return length > MOST_HELLO_BYTES ? MOST_HELLO_BYTES : length;
}

/* A hello's next bytes: how many are told now, and what is left to come. */
static __always_inline void tell_hello(struct __sk_buff *skb, struct packet *packet, struct hello *hello, __u64 cookie)
{
	__u32 length = packet->length;
	__u8 flags = 0;
	int over;

	hello->state = GOES_ON;
	hello->pieces++;
	hello->next = packet->sequence + length;
	if ((__s32)length > hello->budget || length > MOST_HELLO_BYTES) {
		length = hello->budget > MOST_HELLO_BYTES ? MOST_HELLO_BYTES : hello->budget;
		flags = packet->length > MOST_HELLO_BYTES ? CUT : 0;
	}
	hello->budget -= length;
	over = hello->budget <= 0 || hello->pieces >= MOST_HELLO_PIECES;
	if (hello->pieces >= MOST_HELLO_PIECES)
		flags = CUT;
	if (over)
		drop_hello(cookie);
	else
		keep_hello(cookie, hello);
	tell_bytes(skb, packet, KIND_TLS, flags, length);
}

static __always_inline void judge_stream(struct __sk_buff *skb, struct packet *packet, struct bpf_tcp_sock *tcp)
{
	__u32 segments = skb->gso_segs ? skb->gso_segs : 1;
	__u64 cookie = socket_cookie(skb);
	struct hello hello = {}, *known = 0;
	__u8 head[9] = {};
	__u64 read;

	if (tcp->data_segs_out > segments) {
		known = find_hello(cookie);
		if (!known)
			return;
		hello = *known;
		/* Sent once more: it was told before. */
		if ((__s32)(packet->sequence + packet->length - hello.next) <= 0)
			return;
		if (hello.state == GOES_ON) {
			tell_hello(skb, packet, &hello, cookie);
			return;
		}
	}
	read = packet->length < 9 ? packet->length : 9;
	read -= 1;
	asm volatile("%0 &= 0xf" : "+r"(read));
	if (read > 8)
		return;
	read += 1;
	if (bpf_skb_load_bytes(skb, packet->payload, head, read))
		return;
	if (head[0] == TLS_HANDSHAKE && (read < 2 || head[1] == 3) && (read < 6 || head[5] == TLS_CLIENT_HELLO)) {
		__builtin_memset(&hello, 0, sizeof(hello));
		hello.budget = hello_bytes(head, read);
		/* Whole already: what a record's head may add is not waited for. */
		if (read == 9 && packet->length + RECORD_HEADS >= hello.budget && hello.budget < MOST_HELLO_BYTES &&
		    packet->length >= 5 + ((__u32)head[3] << 8 | head[4]) && hello.budget - RECORD_HEADS <= 5 + ((__u32)head[3] << 8 | head[4]))
			hello.budget = packet->length;
		tell_hello(skb, packet, &hello, cookie);
		return;
	}
	if (known)
		drop_hello(cookie);
	if (read >= 4 && is_http(head)) {
		if (*(__u32 *)head == *(__u32 *)"CONN") {
			hello.state = AFTER_CONNECT;
			hello.next = packet->sequence + packet->length;
			keep_hello(cookie, &hello);
		}
		tell_bytes(skb, packet, KIND_HTTP, packet->length > MOST_HTTP_BYTES ? CUT : 0,
			   packet->length > MOST_HTTP_BYTES ? MOST_HTTP_BYTES : packet->length);
	}
}

static __always_inline void judge_datagram(struct __sk_buff *skb, struct packet *packet, struct bpf_sock *socket)
{
	struct destination destination = {};
	__u32 *told;
	__u8 head[5];
	__u32 version;

	destination.cookie = socket_cookie(skb);
	__builtin_memcpy(destination.address, packet->target, 16);
	destination.port = packet->target_port;
	destination.left = 1;
	if (is_new(&destination))
		tell_sent(skb, packet, socket);
	if (packet->protocol != UDP || packet->length < LEAST_QUIC_BYTES || bpf_skb_load_bytes(skb, packet->payload, head, sizeof(head)))
		return;
	__builtin_memcpy(&version, head + 1, 4);
	if ((head[0] & 0xc0) != 0xc0 || version == 0)
		return;
	told = find_destination(&destination);
	if (!told || *told >= MOST_QUIC_PACKETS)
		return;
	__sync_fetch_and_add(told, 1);
	tell_bytes(skb, packet, KIND_QUIC, packet->length > PIECE_BYTES ? CUT : 0, packet->length > PIECE_BYTES ? PIECE_BYTES : packet->length);
}

/* net/ipv4/ip_output.c ip_finish_output, net/ipv6/ip6_output.c ip6_finish_output: after NAT, before segmentation. Of sockets only; what a router
 * forwards and what a packet socket sends does not come here. From 4.10, the counters of TCP from 5.1. */
PROGRAM("cgroup_skb/egress", packet_out, struct __sk_buff *skb)
{
	struct packet packet = {};
	struct bpf_tcp_sock *tcp;
	struct bpf_sock *socket = skb->sk;
	int begins;

	if (!socket)
		return GO_ON;
	socket = bpf_sk_fullsock(socket);
	if (!socket)
		return GO_ON;
	/* A raw socket may have TCP's number, which is what older kernels take for a TCP socket. */
	tcp = socket->type == SOCK_RAW ? 0 : bpf_tcp_sock(socket);
	begins = !tcp || socket->state == BPF_TCP_SYN_SENT;
	/* Most packets are neither the first nor among the first that carry data. They are let go before they are read. */
	if (!begins && (tcp->data_segs_out == 0 || tcp->data_segs_out > MOST_SEGMENTS))
		return GO_ON;
	if (!read_packet(skb, &packet))
		return GO_ON;
	if (packet.protocol != TCP) {
		judge_datagram(skb, &packet, socket);
		return GO_ON;
	}
	/* A raw socket's SYN has no counters: each is told. */
	if (begins && (packet.tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN && (!tcp || tcp->total_retrans == 0))
		tell_sent(skb, &packet, socket);
	if (tcp && packet.length > 0)
		judge_stream(skb, &packet, tcp);
	return GO_ON;
}

/* net/core/filter.c sk_filter_trim_cap: before a packet is put into its socket. From 4.10. */
PROGRAM("cgroup_skb/ingress", packet_in, struct __sk_buff *skb)
{
	struct packet packet = {};
	__u8 *head = (__u8 *)(long)skb->data, *end = (__u8 *)(long)skb->data_end;
	__u8 ip4_protocol, ip6_protocol;

	if (head + 10 > end)
		return GO_ON;
	ip4_protocol = head[9];
	ip6_protocol = head[6];
	/* TCP, which most is, is let go before it is read. */
	if ((skb->protocol == bpf_htons(ETHERNET_IP4) ? ip4_protocol : ip6_protocol) == TCP)
		return GO_ON;
	if (!read_packet(skb, &packet) || packet.protocol != UDP || packet.source_port != DNS_PORT || packet.length == 0)
		return GO_ON;
	tell_bytes(skb, &packet, KIND_DNS, packet.length > MOST_DNS_BYTES ? CUT : 0,
		   packet.length > MOST_DNS_BYTES ? MOST_DNS_BYTES : packet.length);
	return GO_ON;
}

#endif
