"""Run inside a sandbox: tries one way out after the other, and prints each outcome with its time as JSON.

Argument: JSON with the paths and names that exist outside. An outcome is an errno's name, or what was reached.
Uses the standard library alone, since it runs with the system's Python.
"""

import ctypes
import errno
import fcntl
import json
import os
import platform
import socket
import struct
import subprocess
import sys
import termios
import time

known = json.loads(sys.argv[1])
libc = ctypes.CDLL(None, use_errno=True)
ARM = platform.machine() == "aarch64"
DIRECT4, DIRECT6 = "203.0.113.9", "2001:db8:5::5"
outcomes = {}


def attempt(function):
    began = time.monotonic()
    try:
        outcome = function()
    except OSError as error:
        outcome = errno.errorcode.get(error.errno, repr(error)) if error.errno else repr(error)
    outcomes[function.__name__] = [outcome, time.monotonic() - began]
    return function


def call(number, *arguments):
    if libc.syscall(number, *arguments) < 0:
        raise OSError(ctypes.get_errno(), "")
    return "done"


def connect(family, kind, address, protocol=0):
    with socket.socket(family, kind, protocol) as made:
        made.settimeout(5)
        made.connect(address)
        if kind != socket.SOCK_STREAM:
            made.send(b"out")
        return "reached"


def write(path):
    with open(path, "w", encoding="utf-8") as opened:
        opened.write("x")
    return "written"


@attempt
def tcp_ipv4():
    return connect(socket.AF_INET, socket.SOCK_STREAM, (DIRECT4, 443))


@attempt
def tcp_ipv6():
    return connect(socket.AF_INET6, socket.SOCK_STREAM, (DIRECT6, 443))


@attempt
def tcp_to_link_local():
    return connect(socket.AF_INET, socket.SOCK_STREAM, ("169.254.169.254", 80))


@attempt
def udp_443_ipv4():
    return connect(socket.AF_INET, socket.SOCK_DGRAM, (DIRECT4, 443))


@attempt
def udp_443_ipv6():
    return connect(socket.AF_INET6, socket.SOCK_DGRAM, (DIRECT6, 443))


@attempt
def udp_multicast():
    return connect(socket.AF_INET, socket.SOCK_DGRAM, ("224.0.0.251", 5353))


@attempt
def udp_lite():
    return connect(socket.AF_INET, socket.SOCK_DGRAM, (DIRECT4, 443), 136)


@attempt
def icmp_raw():
    return connect(socket.AF_INET, socket.SOCK_RAW, (DIRECT4, 0), socket.IPPROTO_ICMP)


@attempt
def icmp_raw_ipv6():
    return connect(socket.AF_INET6, socket.SOCK_RAW, (DIRECT6, 0), socket.IPPROTO_ICMPV6)


@attempt
def icmp_ping():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP) as made:
        made.sendto(struct.pack(">BBHHH", 8, 0, 0, 0, 1), (DIRECT4, 0))
        return "sent"


@attempt
def packet_socket():
    return socket.socket(17, socket.SOCK_RAW).close() or "made"


@attempt
def vsock():
    return socket.socket(40, socket.SOCK_STREAM).close() or "made"


@attempt
def vsock_pair():
    return call(199 if ARM else 53, 40, 1, 0, (ctypes.c_int * 2)())


@attempt
def abstract_socket():
    return connect(socket.AF_UNIX, socket.SOCK_STREAM, "\0" + known["abstract"])


@attempt
def socket_in_run():
    return connect(socket.AF_UNIX, socket.SOCK_STREAM, known["run_socket"])


@attempt
def socket_in_home():
    return connect(socket.AF_UNIX, socket.SOCK_STREAM, known["home_socket"])


@attempt
def own_socket():
    path = "/tmp/own.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        return connect(socket.AF_UNIX, socket.SOCK_STREAM, path)


@attempt
def own_loopback():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return connect(socket.AF_INET, socket.SOCK_STREAM, listener.getsockname())


@attempt
def inherited_descriptors():
    return sorted(int(name) for name in os.listdir("/proc/self/fd") if os.path.exists("/proc/self/fd/" + name))


@attempt
def network_of_process_1():
    with open("/proc/1/ns/net", "rb") as opened:
        return call(268 if ARM else 308, opened.fileno(), 0x40000000)


@attempt
def root_of_process_1():
    return sorted(os.listdir("/proc/1/root/run"))


@attempt
def trace_process_1():
    return call(117 if ARM else 101, 16, 1, 0, 0)  # PTRACE_ATTACH


@attempt
def processes_seen():
    return len([name for name in os.listdir("/proc") if name.isdecimal()])


@attempt
def type_into_the_terminal():
    return fcntl.ioctl(0, termios.TIOCSTI, b"x") and "typed"


@attempt
def type_with_high_bits():
    return call(29 if ARM else 16, 0, ctypes.c_ulong(0xFFFFFFFF00005412), b"x")


@attempt
def window_size():
    return fcntl.ioctl(0, termios.TIOCGWINSZ, bytes(8)) and "asked"


@attempt
def io_uring():
    return call(425, 1, ctypes.create_string_buffer(120))


@attempt
def keyring():
    return call(219 if ARM else 250, 0, -3, 0)


@attempt
def load_bpf():
    return call(280 if ARM else 321, 0, ctypes.create_string_buffer(64), 64)


@attempt
def delete_the_rules():
    return subprocess.run(["/usr/sbin/nft", "flush", "ruleset"], capture_output=True, text=True, check=False).returncode and "refused"


@attempt
def tcp_after_deleting():
    return connect(socket.AF_INET, socket.SOCK_STREAM, (DIRECT4, 443))


@attempt
def make_a_device():
    return os.mknod(os.path.join(known["home"], "disk"), 0o60666, os.makedev(254, 0)) or "made"


@attempt
def core_pattern():
    return write("/proc/sys/kernel/core_pattern")


@attempt
def sysrq():
    return write("/proc/sysrq-trigger")


@attempt
def uevent_helper():
    return write("/sys/kernel/uevent_helper")


@attempt
def a_cgroup():
    return os.mkdir(os.path.join(known["cgroup"], "hopgate-test")) or "made"


@attempt
def cron():
    return write("/etc/cron.d/hopgate-test")


@attempt
def hidden_folder():
    return os.listdir(known["hidden"])


@attempt
def hidden_secret():
    with open(os.path.join(known["hidden"], "secret"), encoding="utf-8") as opened:
        return opened.read()


@attempt
def chmod_hidden_folder():
    os.chmod(known["hidden"], 0o777)
    return os.listdir(known["hidden"])


@attempt
def own_file():
    with open(os.path.join(known["home"], "file"), encoding="utf-8") as opened:
        return opened.read()


@attempt
def write_own_file():
    return write(os.path.join(known["home"], "written"))


def in_a_user_namespace(function):
    """The outcome of `function` in a child that has every capability in a user and a mount namespace of its own."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            call(97 if ARM else 272, 0x10000000 | 0x00020000)  # CLONE_NEWUSER | CLONE_NEWNS
            outcome = function()
        except OSError as error:
            outcome = errno.errorcode[error.errno]
        os.write(writing, outcome.encode())
        os._exit(0)
    os.close(writing)
    outcome = os.read(reading, 1000).decode()
    os.waitpid(child, 0)
    return outcome


@attempt
def unmount_in_a_user_namespace():
    def unmount():
        if libc.umount2(known["hidden"].encode(), 2) < 0:
            raise OSError(ctypes.get_errno(), "")
        return "unmounted"

    return in_a_user_namespace(unmount)


@attempt
def network_in_a_user_namespace():
    def separate():
        call(97 if ARM else 272, 0x40000000)
        return connect(socket.AF_INET, socket.SOCK_STREAM, (DIRECT4, 443))

    return in_a_user_namespace(separate)


print(json.dumps(outcomes))
