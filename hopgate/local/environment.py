"""What a governed program finds around it: variables, trust bundle, the files that name its resolver.

Keys of providers reach the program as placeholders, since the gate puts the real one into each allowed request. Trust variables name
a bundle that has the gate's CA beside the system's own, proxies and the addresses of local services are taken away. Everything
else is passed on as it is. `--keep-env NAME` leaves one variable alone, whatever this page would do with it.

Not looked at: keys in files (the program's files stay where they are) and variables that the lists (`hopgate.variables`) don't name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hopgate import variables as known
from hopgate.resources.kinds import Provider

# Addresses of services on this machine, all behind Unix sockets that are not there inside.
SOCKET_VARIABLES: Final = frozenset(
    {
        "CONTAINER_HOST",
        "DBUS_SESSION_BUS_ADDRESS",
        "DBUS_SYSTEM_BUS_ADDRESS",
        "DISPLAY",
        "DOCKER_HOST",
        "GNOME_KEYRING_CONTROL",
        "GPG_AGENT_INFO",
        "LISTEN_FDS",
        "LISTEN_PID",
        "NOTIFY_SOCKET",
        "PULSE_SERVER",
        "SESSION_MANAGER",
        "SSH_AGENT_PID",
        "SSH_AUTH_SOCK",
        "TMUX",
        "VSCODE_IPC_HOOK_CLI",
        "WAYLAND_DISPLAY",
        "XAUTHORITY",
        "XDG_RUNTIME_DIR",
    }
)

# Debian and Alpine, Fedora, SUSE, older Alpine and BSD-like layouts
SYSTEM_BUNDLES: Final = (
    Path("/etc/ssl/certs/ca-certificates.crt"),
    Path("/etc/pki/tls/certs/ca-bundle.crt"),
    Path("/etc/ssl/ca-bundle.pem"),
    Path("/etc/ssl/cert.pem"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """The program's variables, and the names of those that hold a placeholder or were taken away, sorted."""

    variables: Mapping[str, str]
    replaced: tuple[str, ...]
    removed: tuple[str, ...]


def governed_environment(
    parent: Mapping[str, str],
    *,
    keep: frozenset[str],
    providers: frozenset[Provider],
    trust_bundle: str,
    allow_sockets: frozenset[str] = frozenset(),
) -> Environment:
    """The variables of a program that would have had `parent`'s.

    `providers` are those registered: their SDKs get a placeholder even where no key was set. `trust_bundle` is the bundle's path as
    the program sees it. A variable that names one of `allow_sockets` stays.
    """
    dropped = {name for name in parent if _unreachable(name, parent[name], allow_sockets) and name not in keep}
    variables = {name: value for name, value in parent.items() if name not in dropped}
    replaced = {name for name in variables if name in known.PROVIDER_KEYS and variables[name] and name not in keep}
    for names in (known.NEEDED_KEYS[provider] for provider in providers):
        if not any(variables.get(name) for name in names):
            replaced.add(names[0])
    variables |= dict.fromkeys(replaced, known.PLACEHOLDER)
    variables |= {name: trust_bundle for name in known.TRUST_VARIABLES if name not in keep}
    return Environment(variables=variables, replaced=tuple(sorted(replaced)), removed=tuple(sorted(dropped)))


def _unreachable(name: str, value: str, allow_sockets: frozenset[str]) -> bool:
    if name in known.PROXY_VARIABLES:
        return True
    return name in SOCKET_VARIABLES and value.removeprefix("unix:path=").removeprefix("unix://") not in allow_sockets


def trust_bundle(authority_pem: bytes, system: Iterable[Path] = SYSTEM_BUNDLES) -> bytes:
    """PEM: the first of `system` that is there, then the gate's CA. Without a system's own only opened TLS can be verified."""
    for path in system:
        try:
            roots = path.read_bytes()
        except FileNotFoundError:
            continue
        return roots + b"\n" + authority_pem
    return authority_pem


def resolver_configuration(address: str) -> str:
    """A resolv.conf that names `address`. It is no loopback address, so the question takes the way that all hops take."""
    return f"nameserver {address}\noptions timeout:1 attempts:2\n"


def name_service(switch: str) -> str:
    """An nsswitch.conf that looks host names up in the file and by DNS alone; the other databases stay as `switch` has them."""
    kept = [line for line in switch.splitlines() if not line.split("#")[0].strip().startswith("hosts:")]
    return "\n".join([*kept, "hosts: files dns", ""])


def host_names(name: str) -> str:
    """An /etc/hosts with this machine's own names. The host's other entries would name addresses that no record owns."""
    return f"127.0.0.1 localhost {name}\n::1 localhost ip6-localhost ip6-loopback {name}\n"
