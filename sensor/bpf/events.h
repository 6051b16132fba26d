/* What the programs tell, byte by byte as `sensor/events.py` reads it. All in the processor's order, addresses as 16 bytes. */
#ifndef HOPGATE_EVENTS_H
#define HOPGATE_EVENTS_H

enum operation {
	CONNECT = 1,
	SENT = 2,
	ESTABLISHED = 3,
	ACCEPTED = 4,
	CLOSED = 5,
	SPECIAL_SOCKET = 6,
	EXECUTED = 7,
	FORKED = 8,
	EXITED = 9,
	RING_MADE = 10,
};

enum flag {
	BLOCKED = 1,
	DATAGRAM_HOOK = 2,
	CUT = 4,
};

enum kind {
	KIND_TLS = 1,
	KIND_QUIC = 2,
	KIND_HTTP = 3,
	KIND_DNS = 4,
	KIND_EXECUTED = 5,
};

struct event {
	__u8 operation, family, flags, unused_8;
	__u16 protocol, unused_16;
	__u32 uid, process, other_process, interface;
	__u64 time_ns, cookie, cgroup_id, netns_cookie, started_ns, sent_bytes, received_bytes;
	__u8 remote[16], local[16], asked[16];
	__u16 remote_port, local_port, asked_port, unused_port;
	char command[16];
};

struct payload {
	__u8 kind, family, flags, unused_8;
	__u32 size, sequence, process;
	__u64 time_ns, cookie, cgroup_id;
	__u8 local[16], remote[16];
	__u16 local_port, remote_port, protocol, unused_16;
};

/* A datagram socket and an address that it was told of: once when it is asked for, once when the first packet leaves for it. */
struct destination {
	__u64 cookie;
	__u8 address[16];
	__u16 port, left;
	__u32 unused;
};

/* A hello that is not whole yet: what TCP number was told up to, and how much more is taken. */
struct hello {
	__u32 next;
	__s32 budget;
	__u32 pieces;
	__u32 state;
};

/* Indices of the counters: attempts and losses of each ring. */
enum count {
	EVENTS_TRIED = 0,
	EVENTS_LOST = 1,
	PAYLOADS_TRIED = 2,
	PAYLOADS_LOST = 3,
	COUNTS = 4,
};

#endif
