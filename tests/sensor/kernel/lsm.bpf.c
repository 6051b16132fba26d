/* A program of the BPF LSM, to see that such programs load and hold on a kernel that has it: no packet socket can be made. */
#include <linux/bpf.h>
#include <linux/types.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#define AF_PACKET 17
#define EPERM 1

char LICENSE[] SEC("license") = "GPL";

SEC("lsm/socket_create")
int BPF_PROG(refuse_packet_sockets, int family, int type, int protocol, int kernel)
{
	return family == AF_PACKET ? -EPERM : 0;
}
