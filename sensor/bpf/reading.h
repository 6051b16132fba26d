/* Addresses, packets and system calls as the hooks show them, for all objects. */
#ifndef HOPGATE_READING_H
#define HOPGATE_READING_H

#define AF_INET 2
#define AF_INET6 10
#define AF_PACKET 17
#define TCP 6
#define UDP 17
#define UDP_LITE 136

/* What programs of the cgroup hooks answer: whether the kernel goes on. */
#define REFUSE 0
#define GO_ON 1

/* Ends a branch that reads the same kind of field as the other one. Else the compiler makes one read of the two, from an address that differs,
 * and the verifier lets no address of a socket's or a context's field be taken. */
#define APART() asm volatile("" ::: "memory")

#define ETHERNET_IP4 0x0800
#define ETHERNET_IP6 0x86dd
#define IP6_HOP_BY_HOP 0
#define IP6_ROUTING 43
#define IP6_FRAGMENT 44
#define IP6_DESTINATION 60
#define MOST_IP6_EXTENSIONS 4
#define TCP_SYN 0x02
#define TCP_ACK 0x10

/* IPv4 as mapped IPv6. */
static __always_inline void put_ip4(__u8 *address, __u32 ip4)
{
	__u32 words[4] = {0, 0, bpf_htons(0xffff) << 16, ip4};

	__builtin_memcpy(address, words, 16);
}

static __always_inline void put_ip6(__u8 *address, __u32 a, __u32 b, __u32 c, __u32 d)
{
	__u32 words[4] = {a, b, c, d};

	__builtin_memcpy(address, words, 16);
}

struct packet {
	__u32 transport, payload, length;
	__u32 sequence;
	__u16 source_port, target_port;
	__u8 protocol, family, tcp_flags, unused;
	__u8 source[16], target[16];
};

static __always_inline int read_ip4(struct __sk_buff *skb, struct packet *packet)
{
	__u8 head[20];
	__u32 address;

	if (bpf_skb_load_bytes(skb, 0, head, sizeof(head)) || (head[6] & 0x1f) || head[7])
		return 0;
	packet->family = AF_INET;
	packet->transport = (head[0] & 0x0f) * 4;
	packet->protocol = head[9];
	__builtin_memcpy(&address, head + 12, 4);
	put_ip4(packet->source, address);
	__builtin_memcpy(&address, head + 16, 4);
	put_ip4(packet->target, address);
	return 1;
}

static __always_inline int read_ip6(struct __sk_buff *skb, struct packet *packet)
{
	__u8 head[40], extension[8];
	__u32 offset = 40;
	__u8 next;
	int i;

	if (bpf_skb_load_bytes(skb, 0, head, sizeof(head)))
		return 0;
	packet->family = AF_INET6;
	__builtin_memcpy(packet->source, head + 8, 16);
	__builtin_memcpy(packet->target, head + 24, 16);
	next = head[6];
#pragma unroll
	for (i = 0; i < MOST_IP6_EXTENSIONS; i++) {
		if (next != IP6_HOP_BY_HOP && next != IP6_ROUTING && next != IP6_DESTINATION && next != IP6_FRAGMENT)
			break;
		if (bpf_skb_load_bytes(skb, offset, extension, sizeof(extension)))
			return 0;
		if (next == IP6_FRAGMENT) {
			if (extension[2] || (extension[3] & 0xf8))
				return 0;
			offset += 8;
		} else {
			offset += ((__u32)extension[1] + 1) * 8;
		}
		next = extension[0];
	}
	packet->transport = offset;
	packet->protocol = next;
	return 1;
}

static __always_inline int read_ports(struct __sk_buff *skb, struct packet *packet)
{
	__u8 head[14];
	__u32 sequence;
	__u16 port;

	if (packet->protocol == TCP) {
		if (bpf_skb_load_bytes(skb, packet->transport, head, 14))
			return 0;
		__builtin_memcpy(&sequence, head + 4, 4);
		packet->tcp_flags = head[13];
		/* A SYN takes a number before the data that it carries. */
		packet->sequence = bpf_ntohl(sequence) + (head[13] & TCP_SYN ? 1 : 0);
		packet->payload = packet->transport + (head[12] >> 4) * 4;
	} else if (packet->protocol == UDP || packet->protocol == UDP_LITE) {
		if (bpf_skb_load_bytes(skb, packet->transport, head, 8))
			return 0;
		packet->payload = packet->transport + 8;
	} else {
		return 0;
	}
	__builtin_memcpy(&port, head, 2);
	packet->source_port = bpf_ntohs(port);
	__builtin_memcpy(&port, head + 2, 2);
	packet->target_port = bpf_ntohs(port);
	packet->length = skb->len > packet->payload ? skb->len - packet->payload : 0;
	return 1;
}

static __always_inline int read_packet(struct __sk_buff *skb, struct packet *packet)
{
	if (skb->protocol == bpf_htons(ETHERNET_IP4))
		return read_ip4(skb, packet) && read_ports(skb, packet);
	if (skb->protocol == bpf_htons(ETHERNET_IP6))
		return read_ip6(skb, packet) && read_ports(skb, packet);
	return 0;
}

/* Of a tracepoint of a system call. */
struct call_arguments {
	__u64 common, number;
	__u64 arguments[6];
};

#endif
