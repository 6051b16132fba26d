"""A real Kubernetes API server with its etcd on loopback, in a folder of its own: what the tests of the Kubernetes side stand on.

There is no kubelet and no controller: pods stay Pending, a deleted namespace stays Terminating, nothing makes a default ServiceAccount
(the admission plugin that would ask for one is off); `node.Node` puts them beside it. Users are client certificates of a CA made for the
run; `admin` may do everything.
Both processes are killed, never asked to end, and die with this process. Flags as Kubernetes 1.37 has them.
"""

from __future__ import annotations

import base64
import datetime
import functools
import http.client
import itertools
import json
import os
import random
import shutil
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import kubernetes.client
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from kubernetes.client import ApiClient, V1Namespace, V1ObjectMeta

from hopgate import cache

PROGRAMS = ("kube-apiserver", "etcd", "kubectl")
# Ready after 3 s where nothing else runs; machines that run tests are seldom such.
DEADLINE_SECONDS = 60.0
SERVICE_ADDRESSES = "10.96.0.0/16"
# Below the ports that Linux gives to clients, so that no connection takes a killed server's port (net.ipv4.ip_local_port_range).
PORTS = range(20000, 32000)

T = TypeVar("T")

# What an API server is told that has no controller-manager and no node.
ALONE = ("--authorization-mode=RBAC", "--disable-admission-plugins=ServiceAccount", "--endpoint-reconciler-type=none")

_SERVER = "kube-apiserver"
_LIFE = datetime.timedelta(days=2)


class ClusterError(Exception):
    """The API server or etcd didn't start, or a command failed; the message holds what it said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """Somebody whom the API server knows by a client certificate: name (CN) and groups (O)."""

    name: str
    groups: tuple[str, ...]
    certificate: Path
    key: Path
    kubeconfig: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where an API server's programs run: by default, where this process runs, for itself alone."""

    # What each program's command is put behind.
    enter: tuple[str, ...] = ()
    # The addresses and names beside loopback's that the server's certificate is good for.
    names: tuple[str, ...] = ()
    flags: tuple[str, ...] = ALONE


def find_binaries() -> Path | None:
    """The folder with the programs: KUBEBUILDER_ASSETS (envtest's convention), or what `build.sh` made; None: not there."""
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    return Path(assets) if assets else find_built("kubernetes")


def find_built(name: str, module: str = "k8s.io/kubernetes", go_mod: str = "go.mod") -> Path | None:
    """The folder NAME-VERSION that `build.sh` made of a module's programs; None: not there."""
    words = (Path(__file__).parent / go_mod).read_text().split()
    version = words[words.index(module) + 1].removeprefix("v")
    folder = cache.folder() / f"{name}-{version}"
    return folder if (folder / ".complete").exists() else None


def eventually(condition: Callable[[], T], what: str, seconds: float = DEADLINE_SECONDS) -> T:
    """The first true value of `condition`. Raises TimeoutError that says `what` was waited for."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise TimeoutError(f"waited {seconds:g} s until {what}")
        time.sleep(0.02)  # between two looks at the condition


class ApiServer:
    """etcd and kube-apiserver. `start` after `kill` comes back at the same address, with the same objects, keys and users."""

    def __init__(self, binaries: Path, folder: Path, *, flags: Sequence[str] = (), place: Place | None = None) -> None:
        """`folder` must not exist yet; `stop` removes it. `flags` come after the API server's own: the last of two counts."""
        self.binaries = binaries
        self.folder = folder
        self._place = place or Place()
        self._flags = tuple(flags)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._clients: list[ApiClient] = []
        self._own_client: ApiClient | None = None
        self._namespaces = itertools.count(1)
        # PR_SET_PDEATHSIG goes by the thread that forked: one thread starts every process, and lives as long as they may.
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="cluster")
        self._etcd_port, self._peer_port, self.port = free_ports(3)
        folder.mkdir(mode=0o700, parents=True)
        self._authority = _Authority(folder)
        self.serving_certificate("server", "kube-apiserver", self._place.names)
        _write_service_account_keys(folder)
        self.admin = self.user("admin", "system:masters")

    @property
    def url(self) -> str:
        """`https://127.0.0.1:PORT`."""
        return f"https://127.0.0.1:{self.port}"

    @property
    def etcd_url(self) -> str:
        """Where etcd's HTTP API answers, to whoever asks."""
        return f"http://127.0.0.1:{self._etcd_port}"

    @property
    def ca_file(self) -> Path:
        """The PEM certificate of the CA of servers and users."""
        return self._authority.certificate_file

    @property
    def pid(self) -> int:
        """The API server's process id. Raises KeyError when it doesn't run."""
        return self._processes[_SERVER].pid

    def start(self) -> None:
        """Start what doesn't run, and wait until `/readyz` answers. Raises ClusterError with the end of the log."""
        if "etcd" not in self._processes:
            self.spawn("etcd", (str(self.binaries / "etcd"), *self._etcd_arguments()))
        if _SERVER not in self._processes:
            self.spawn(_SERVER, (str(self.binaries / _SERVER), *self._server_arguments()))
        eventually(self._ready, "the API server is ready")

    def spawn(self, program: str, command: Sequence[str]) -> int:
        """Start a program where the API server runs, and give its process id; it ends with `stop`. `program` names its log."""
        entered = ("setpriv", "--pdeathsig", "KILL", *self._place.enter, *command)
        with (self.folder / f"{program}.log").open("ab") as log:
            started = self._starter.submit(
                subprocess.Popen, entered, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder, process_group=0
            )
            self._processes[program] = started.result()
        return self._processes[program].pid

    def kill(self, program: str = _SERVER) -> None:
        """End a program at once (SIGKILL), by default the API server; etcd stays. Nothing happens when it doesn't run."""
        process = self._processes.pop(program, None)
        if process is not None:
            process.send_signal(signal.SIGKILL)
            process.wait()

    def check(self) -> None:
        """Raises ClusterError, with the end of its log, when a program ended by itself."""
        for program, process in self._processes.items():
            if process.poll() is not None:
                raise ClusterError(f"{program} ended with status {process.returncode}:\n{self.log(program)}")

    def restart(self, flags: Sequence[str]) -> None:
        """End the API server at once and start it with other `flags` of the caller's."""
        self.kill()
        self._flags = tuple(flags)
        self.start()

    def stop(self) -> None:
        """End all programs, close all clients, remove the folder."""
        for client in self._clients:
            client.close()  # type: ignore[no-untyped-call]  # the client's own annotations end here
        self._clients.clear()
        for program in tuple(self._processes):
            self.kill(program)
        self._starter.shutdown()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def user(self, name: str, *groups: str) -> User:
        """A user with a certificate of their own. They may do what RBAC grants: nothing, until a binding names them."""
        file = "user-" + base64.urlsafe_b64encode(name.encode()).decode().rstrip("=")
        certificate, key = self._authority.issue(file, name, groups=groups)
        kubeconfig = self.folder / f"{file}.kubeconfig"
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": {"server": self.url, "certificate-authority": str(self.ca_file)}}],
            "users": [{"name": "user", "user": {"client-certificate": str(certificate), "client-key": str(key)}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "user"}}],
            "current-context": "test",
        }
        kubeconfig.write_text(json.dumps(content))
        return User(name=name, groups=groups, certificate=certificate, key=key, kubeconfig=kubeconfig)

    def serving_certificate(self, file: str, name: str, names: Sequence[str] = ()) -> tuple[Path, Path]:
        """Write `FILE.crt` and `FILE.key` for a server at loopback and at `names` (addresses, DNS names), and give their paths."""
        return self._authority.issue(file, name, names=("127.0.0.1", "localhost", *names))

    def client(self, user: User | None = None, *, retries: int | None = None) -> ApiClient:
        """A client of `user` (None: the admin), closed by `stop`. `retries` 0: no error is tried again."""
        user = user or self.admin
        configuration = kubernetes.client.Configuration()
        configuration.host = self.url
        configuration.ssl_ca_cert = str(self.ca_file)
        configuration.cert_file = str(user.certificate)
        configuration.key_file = str(user.key)
        configuration.retries = retries
        client = ApiClient(configuration)
        self._clients.append(client)
        return client

    def kubectl(self, *arguments: str, user: User | None = None, stdin: str | None = None) -> str:
        """What kubectl wrote. Raises ClusterError with its error."""
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.folder), "KUBECONFIG": str((user or self.admin).kubeconfig)}
        done = subprocess.run(
            (str(self.binaries / "kubectl"), *arguments),
            env=environment,
            input=stdin if stdin is not None else "",
            capture_output=True,
            text=True,
            timeout=DEADLINE_SECONDS,
            check=False,
        )
        if done.returncode != 0:
            raise ClusterError(done.stderr.strip())
        return done.stdout

    def namespace(self, labels: dict[str, str] | None = None) -> str:
        """Make a namespace that no other test has, and give its name."""
        name = f"test-{next(self._namespaces)}"
        metadata = V1ObjectMeta(name=name, labels=labels or {})
        kubernetes.client.CoreV1Api(self._admin_client()).create_namespace(V1Namespace(metadata=metadata))
        return name

    def install(self, definitions: Path) -> None:
        """Apply every CustomResourceDefinition of a folder, and wait until objects of each can be made."""
        self.kubectl("apply", "--server-side", "-f", str(definitions))
        for file in sorted(definitions.glob("*.yaml")):
            for specification in [found["spec"] for found in yaml.safe_load_all(file.read_text()) if found]:
                for version in [each["name"] for each in specification["versions"] if each["served"]]:
                    served = functools.partial(self._is_served, specification["group"], version, specification["names"]["plural"])
                    eventually(served, f"{specification['names']['plural']} of {file.name} are served")

    def _is_served(self, group: str, version: str, plural: str) -> bool:
        """An Established definition's objects give 404 for about 2 s more, or 429 while their storage is made."""
        try:
            kubernetes.client.CustomObjectsApi(self._admin_client()).list_cluster_custom_object(group, version, plural)
        except kubernetes.client.ApiException as error:
            if error.status in {http.HTTPStatus.NOT_FOUND, http.HTTPStatus.TOO_MANY_REQUESTS}:
                return False
            raise
        return True

    def log(self, program: str = _SERVER) -> str:
        """The last lines that the program logged."""
        text = (self.folder / f"{program}.log").read_text(errors="replace")
        return "\n".join(text.splitlines()[-20:])

    def _admin_client(self) -> ApiClient:
        if self._own_client is None:
            self._own_client = self.client(retries=0)
        return self._own_client

    def _ready(self) -> bool:
        self.check()
        context = ssl.create_default_context(cafile=self.ca_file)
        context.load_cert_chain(self.admin.certificate, self.admin.key)
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=5, context=context)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == http.HTTPStatus.OK
        except OSError:
            return False
        finally:
            connection.close()

    def _etcd_arguments(self) -> tuple[str, ...]:
        peer = f"http://127.0.0.1:{self._peer_port}"
        return (
            f"--data-dir={self.folder / 'etcd'}",
            f"--listen-client-urls={self.etcd_url}",
            f"--advertise-client-urls={self.etcd_url}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--unsafe-no-fsync",
        )

    def _server_arguments(self) -> tuple[str, ...]:
        return (
            f"--etcd-servers={self.etcd_url}",
            f"--secure-port={self.port}",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            f"--tls-cert-file={self.folder / 'server.crt'}",
            f"--tls-private-key-file={self.folder / 'server.key'}",
            f"--client-ca-file={self.ca_file}",
            f"--cert-dir={self.folder / 'certificates'}",
            f"--service-account-key-file={self.folder / 'service-account.pub'}",
            f"--service-account-signing-key-file={self.folder / 'service-account.key'}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-cluster-ip-range={SERVICE_ADDRESSES}",
            "--allow-privileged=true",
            f"--kubelet-client-certificate={self.admin.certificate}",
            f"--kubelet-client-key={self.admin.key}",
            f"--kubelet-certificate-authority={self.ca_file}",
            *self._place.flags,
            *self._flags,
        )


class _Authority:
    """The CA of one run, in `ca.crt`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test cluster")])
        usage = x509.KeyUsage(
            digital_signature=True,
            key_cert_sign=True,
            crl_sign=True,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            encipher_only=False,
            decipher_only=False,
        )
        builder = self._builder(self._name, self._key).add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        self.certificate_file = folder / "ca.crt"
        self._sign(builder.add_extension(usage, critical=True), self.certificate_file)

    def issue(self, file: str, name: str, *, groups: Sequence[str] = (), names: Sequence[str] = ()) -> tuple[Path, Path]:
        """Write `FILE.crt` and `FILE.key` and give their paths: a server's when it has `names` (addresses, DNS names), else a client's."""
        key = ec.generate_private_key(ec.SECP256R1())
        attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
        subject = x509.Name([*attributes, x509.NameAttribute(NameOID.COMMON_NAME, name)])
        usage = ExtendedKeyUsageOID.SERVER_AUTH if names else ExtendedKeyUsageOID.CLIENT_AUTH
        builder = self._builder(subject, key).add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
        certificate_file, key_file = self._folder / f"{file}.crt", self._folder / f"{file}.key"
        _write_key(key_file, key)
        self._sign(builder, certificate_file)
        return certificate_file, key_file

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(minutes=5))
            .not_valid_after(now + _LIFE)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )

    def _sign(self, builder: x509.CertificateBuilder, file: Path) -> None:
        certificate = builder.sign(self._key, hashes.SHA256())
        file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _write_key(file: Path, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> None:
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    file.touch(mode=0o600)
    file.write_bytes(pem)


def _write_service_account_keys(folder: Path) -> None:
    """RSA, as kubeadm and the managed clusters have it: tokens are RS256."""
    key = rsa.generate_private_key(65537, 2048)
    _write_key(folder / "service-account.key", key)
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    (folder / "service-account.pub").write_bytes(public)


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on now."""
    found: list[int] = []
    for port in random.sample(PORTS, len(PORTS)):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise ClusterError(f"expected {count} free ports from {PORTS.start} to {PORTS.stop - 1}, got {len(found)}")


def message_of(error: kubernetes.client.ApiException) -> str:
    """What the API server says went wrong, for people."""
    try:
        body: Any = json.loads(error.body or "")
    except ValueError:
        return str(error.body)
    return str(body.get("message", body)) if isinstance(body, dict) else str(body)
