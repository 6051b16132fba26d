"""Real clients of TLS, each told which name and which protocols to ask for, and what they are then known to offer."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

PROGRAMS = Path(__file__).parent / "programs"
HOST = "127.0.0.1"
NAME = "api.example.com"
PUBLIC_NAME = "public.example.com"
_SECONDS = 30.0

_PYTHON = """
import socket, ssl, sys
context = ssl._create_unverified_context()
protocols = sys.argv[3].split(",") if sys.argv[3] else []
if protocols:
    context.set_alpn_protocols(protocols)
with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as plain:
    with context.wrap_socket(plain, server_hostname=sys.argv[2] or None) as tls:
        tls.version()
"""
_HTTPX = """
import sys, httpx
with httpx.Client(verify=False, http2=bool(sys.argv[2])) as client:
    client.get(f"https://localhost:{sys.argv[1]}/")
"""
_OPENAI = """
import sys, httpx2, openai
url = f"https://localhost:{sys.argv[1]}/v1"
client = openai.OpenAI(base_url=url, api_key="demo", max_retries=0, http_client=httpx2.Client(verify=False))
client.models.list()
"""
_BORINGSSL = """
import sys
from curl_cffi import requests
requests.get(f"https://localhost:{sys.argv[1]}/", impersonate="chrome", verify=False, proxies={})
"""
_NODE = """
const [port, name] = process.argv.slice(1);
const options = {host: "127.0.0.1", port, servername: name, ALPNProtocols: ["h2", "http/1.1"], rejectUnauthorized: false};
const socket = require("tls").connect(options, () => socket.end());
"""
_NODE_HTTPS = """
require("https").get({host: "localhost", port: process.argv[1], rejectUnauthorized: false}, (response) => response.resume());
"""
_NODE_FETCH = """
process.env.NODE_TLS_REJECT_UNAUTHORIZED = "0";
fetch(`https://localhost:${process.argv[1]}/`).then((response) => response.text());
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """`command` with `PORT` for the server's port; `name` and `protocols` are what it asks for by it. `version` is the highest
    that it offers, `suites` are all, where they are told."""

    command: tuple[str, ...]
    name: str
    protocols: tuple[str, ...]
    version: str = "13"
    suites: tuple[int, ...] = ()

    def run(self, port: int) -> None:
        """Raises CalledProcessError when it ends badly, TimeoutExpired when it does not end."""
        command = [part.replace("PORT", str(port)) for part in self.command]
        environment = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
        subprocess.run(command, check=True, timeout=_SECONDS, stdin=subprocess.DEVNULL, capture_output=True, env=environment)


def _curl(*options: str, protocols: tuple[str, ...], name: str = NAME, version: str = "13", suites: tuple[int, ...] = ()) -> Client:
    route = ("--connect-to", f"{NAME}:443:{HOST}:PORT", f"https://{name}/") if name else (f"https://{HOST}:PORT/",)
    command = ("curl", "--silent", "--show-error", "--insecure", "--noproxy", "*", *options, *route)
    return Client(command=command, name=name, protocols=protocols, version=version, suites=suites)


def _gnutls(*options: str, protocols: tuple[str, ...], version: str = "13") -> Client:
    asked = tuple(part for protocol in protocols for part in ("--alpn", protocol))
    command = ("gnutls-cli", "--insecure", "--sni-hostname", NAME, *asked, *options, "--port", "PORT", HOST)
    return Client(command=command, name=NAME, protocols=protocols, version=version)


def _openssl(*options: str, protocols: tuple[str, ...], version: str = "13", suites: tuple[int, ...] = ()) -> Client:
    command = ("openssl", "s_client", "-connect", f"{HOST}:PORT", "-servername", NAME, "-alpn", ",".join(protocols), *options)
    return Client(command=command, name=NAME, protocols=protocols, version=version, suites=suites)


def _python(program: str, *arguments: str, name: str, protocols: tuple[str, ...]) -> Client:
    return Client(command=(sys.executable, "-W", "ignore", "-c", program, "PORT", *arguments), name=name, protocols=protocols)


def _node(program: str, *arguments: str, name: str, protocols: tuple[str, ...]) -> Client:
    return Client(command=("node", "-e", program, "PORT", *arguments), name=name, protocols=protocols)


# What a client adds to the suites it is told to offer: the mark that it knows secure renegotiation (RFC 5746 3.3).
_RENEGOTIATION = 0x00FF

CLIENTS: dict[str, Client] = {
    "curl": _curl(protocols=("h2", "http/1.1")),
    "curl, HTTP/1.1": _curl("--http1.1", protocols=("http/1.1",)),
    "curl, no ALPN": _curl("--no-alpn", protocols=()),
    "curl, to an address": _curl("--http1.1", name="", protocols=("http/1.1",)),
    "curl, one suite of TLS 1.2": _curl(
        "--http1.1",
        "--tls-max",
        "1.2",
        "--ciphers",
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        protocols=("http/1.1",),
        version="12",
        suites=(0xC02B, _RENEGOTIATION),
    ),
    "OpenSSL": _openssl(protocols=("h2", "http/1.1")),
    "OpenSSL, one suite of TLS 1.3": _openssl(
        "-tls1_3", "-ciphersuites", "TLS_AES_256_GCM_SHA384", protocols=("h2",), suites=(0x1302, _RENEGOTIATION)
    ),
    "GnuTLS": _gnutls(protocols=("h2", "http/1.1")),
    "GnuTLS, TLS 1.2": _gnutls("--priority", "NORMAL:-VERS-ALL:+VERS-TLS1.2", protocols=("http/1.1",), version="12"),
    "Python": _python(_PYTHON, NAME, "h2,http/1.1", name=NAME, protocols=("h2", "http/1.1")),
    "Python, no name": _python(_PYTHON, "", "", name="", protocols=()),
    "httpx": _python(_HTTPX, "", name="localhost", protocols=("http/1.1",)),
    "httpx, HTTP/2": _python(_HTTPX, "2", name="localhost", protocols=("http/1.1", "h2")),
    "openai": _python(_OPENAI, name="localhost", protocols=("http/1.1",)),
    "BoringSSL, as browsers use it": _python(_BORINGSSL, name="localhost", protocols=("h2", "http/1.1")),
    "Node": _node(_NODE, NAME, name=NAME, protocols=("h2", "http/1.1")),
    "Node, https": _node(_NODE_HTTPS, name="localhost", protocols=()),
    "Node, fetch": _node(_NODE_FETCH, name="localhost", protocols=("http/1.1",)),
}


def go() -> str | None:
    """Where Go is, if it is here."""
    return shutil.which("go", path=os.environ.get("PATH", "") + ":/usr/local/go/bin")


def go_clients(go_command: str, folder: Path) -> dict[str, Client]:
    """Three of them, built into `folder`; the last asks for NAME where nobody sees it, and for PUBLIC_NAME where all do."""
    program = folder / "client"
    environment = os.environ | {"GO111MODULE": "off", "CGO_ENABLED": "0"}
    build = [go_command, "build", "-o", str(program), str(PROGRAMS / "client.go")]
    subprocess.run(build, check=True, timeout=_SECONDS, stdin=subprocess.DEVNULL, capture_output=True, env=environment)

    def client(address: str, *arguments: str, name: str) -> Client:
        return Client(command=(str(program), f"{address}:PORT", *arguments), name=name, protocols=("h2", "http/1.1"))

    return {
        "Go": client(HOST, NAME, "h2,http/1.1", "", name=NAME),
        "Go, net/http": client("localhost", "", "", "", name="localhost"),
        "Go, hidden": client(HOST, NAME, "h2,http/1.1", PUBLIC_NAME, name=PUBLIC_NAME),
    }
