"""Envoy's own messages as generated upstream (`xds-protos`), asked in another process: both define the same names.

The package is installed once into the user's cache, into a folder of its own: it brings a top-level package `envoy`.
Run as a program, this file is that other process: `python -I -S xds_protos.py FOLDER`, one JSON question on standard
input, one answer on standard output.
"""

from __future__ import annotations

import base64
import contextlib
import importlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

# What the generated messages need is beside them, so that nothing of the tests' own environment is involved.
PACKAGES = ("xds-protos==1.85.0", "protobuf==7.36.2")

MODULES = {
    "envoy.service.auth.v3.CheckRequest": "envoy.service.auth.v3.external_auth_pb2",
    "envoy.service.auth.v3.CheckResponse": "envoy.service.auth.v3.external_auth_pb2",
    "envoy.service.discovery.v3.DeltaDiscoveryRequest": "envoy.service.discovery.v3.discovery_pb2",
    "envoy.service.discovery.v3.DeltaDiscoveryResponse": "envoy.service.discovery.v3.discovery_pb2",
    "envoy.extensions.transport_sockets.tls.v3.Secret": "envoy.extensions.transport_sockets.tls.v3.secret_pb2",
}
SERVICES = ("envoy.service.auth.v3.external_auth_pb2", "envoy.service.secret.v3.sds_pb2")


def folder() -> Path:
    """Where the packages are; installed when they are not there yet."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hopgate"
    home = cache / "-".join(PACKAGES).replace("==", "-")
    if not home.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix=".xds-protos-") as making:
            pip = (sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps")
            subprocess.run((*pip, "--target", f"{making}/new", *PACKAGES), check=True)
            with contextlib.suppress(OSError):  # another test run may have finished it meanwhile
                Path(making, "new").rename(home)
    return home


def ask(question: dict[str, Any]) -> Any:
    """Ask the other process: `{"read": {NAME: BASE64}}` or `{"write": {NAME: FIELDS}}`, answered per name, or `{"services": true}`."""
    command = (sys.executable, "-I", "-S", __file__, str(folder()))
    done = subprocess.run(command, input=json.dumps(question), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def _answer(question: dict[str, Any]) -> dict[str, Any]:
    json_format: Any = importlib.import_module("google.protobuf.json_format")
    answer: dict[str, Any] = {}
    for name, encoded in question.get("read", {}).items():
        message = _message(name)
        message.ParseFromString(base64.b64decode(encoded))
        again = message.SerializeToString(deterministic=True)
        fields = json_format.MessageToDict(message, preserving_proto_field_name=True)
        message.DiscardUnknownFields()
        known = message.SerializeToString(deterministic=True)
        answer[name] = {"bytes": base64.b64encode(again).decode(), "known": base64.b64encode(known).decode(), "fields": fields}
    for name, fields in question.get("write", {}).items():
        message = json_format.ParseDict(fields, _message(name))
        answer[name] = base64.b64encode(message.SerializeToString(deterministic=True)).decode()
    if question.get("services"):
        for module in SERVICES:
            for service in importlib.import_module(module).DESCRIPTOR.services_by_name.values():
                for method in service.methods:
                    signature = [
                        method.input_type.full_name,
                        method.output_type.full_name,
                        method.client_streaming,
                        method.server_streaming,
                    ]
                    answer[f"/{service.full_name}/{method.name}"] = signature
    return answer


def _message(name: str) -> Any:
    for module in MODULES.values():  # all of them, since a Secret travels inside another message
        importlib.import_module(module)
    return getattr(importlib.import_module(MODULES[name]), name.rpartition(".")[2])()


if __name__ == "__main__":
    sys.path.insert(0, sys.argv[1])
    json.dump(_answer(json.load(sys.stdin)), sys.stdout)
