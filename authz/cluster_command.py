"""The authz process of a cluster: `python -m authz cluster`. A composition root, apart from that of one machine, which needs no cluster.

Where the API server is comes from a kubeconfig, or from the pod that this process is in. It ends in an orderly way on SIGTERM.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from authz import cluster_process
from authz import mesh as meshes
from authz.cluster_api import ApiServer
from authz.cluster_process import NOTICE_SECONDS, SETTLE_SECONDS, MeshSettings, Settings
from authz.mesh import Mesh
from authz.server import CONNECTION_SECONDS
from hopgate.audit.errors import AuditError
from hopgate.kubernetes.api import ClientError
from hopgate.kubernetes.client import Client
from hopgate.kubernetes.keys import PodReference
from hopgate.tls_files import TlsFilesError
from tokenmint.errors import AuthorityUnusableError

# The usual issuer of a cluster made by kubeadm; managed clusters have their own (`iss` of any service account's token).
ISSUER = "https://kubernetes.default.svc.cluster.local"
# How long the thread that builds a snapshot goes on before one that has a check to answer gets its turn. A check needs several turns, so
# Python's 5 ms would be tens of milliseconds for each check while a snapshot is built; shorter turns make the build take a little longer
# (docs/performance.md).
SWITCH_SECONDS = 0.0001


def main(arguments: Sequence[str]) -> int:
    """Run until told to end. Exit code 0 after an orderly end, 1 when the process could not start."""
    parser = _parser()
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="hopgate authz: %(levelname)s: %(message)s")
    sys.setswitchinterval(SWITCH_SECONDS)
    settings = Settings(
        pod=PodReference(namespace=given.namespace, name=given.pod, uid=given.pod_uid),
        service_account=given.service_account,
        issuer=given.issuer,
        audience=given.audience,
        listen=given.listen,
        health=given.health,
        resolver=given.resolver,
        certificate=given.certificate,
        private_key=given.private_key,
        spool=given.spool,
        open_tls=_pair(parser, given.open_tls_certificate, given.open_tls_key),
        metrics=given.metrics,
        mesh=_mesh(parser, given),
        connection_seconds=given.connection_seconds,
        notice_seconds=given.notice_seconds,
        settle_seconds=given.settle_seconds,
    )
    try:
        client = Client.connect(given.kubeconfig)
        try:
            return asyncio.run(cluster_process.serve(settings, ApiServer(client)))
        finally:
            client.close()
    except (ClientError, TlsFilesError, AuthorityUnusableError, AuditError) as error:
        sys.stderr.write(f"hopgate authz: {error} ({error.code})\n")
        return 1


def _pair(parser: argparse.ArgumentParser, certificate: Path | None, key: Path | None) -> tuple[Path, Path] | None:
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        parser.error("expected --open-tls-certificate and --open-tls-key together, got one of them")
    return certificate, key


def _mesh(parser: argparse.ArgumentParser, given: argparse.Namespace) -> MeshSettings | None:
    parts = {
        "--mesh-listen": given.mesh_listen,
        "--mesh-authorities": given.mesh_authorities,
        "--mesh-trust-domain": given.mesh_trust_domain,
        "--mesh-envoy": given.mesh_envoy,
    }
    missing = [name for name, value in parts.items() if not value]
    if len(missing) == len(parts):
        return None
    if missing:
        parser.error(f"expected {', '.join(parts)} together, got none of {', '.join(missing)}")
    try:
        trust_domains = frozenset(meshes.parse_trust_domain(text) for text in given.mesh_trust_domain)
        named = [meshes.parse_envoy(text) for text in given.mesh_envoy]
    except ValueError as error:
        parser.error(str(error))
    if len(dict(named)) != len(named):
        parser.error("expected each Envoy once in --mesh-envoy, with all its namespaces, got one several times")
    believed = Mesh(trust_domains=trust_domains, envoys=dict(named))
    return MeshSettings(listen=given.mesh_listen, authorities=given.mesh_authorities, believed=believed)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m authz cluster", description=__doc__)
    parser.add_argument("--kubeconfig", type=Path, help="how to reach the API server (default: as the pod that this process is in)")
    parser.add_argument("--namespace", required=True, help="the namespace of this process's pod")
    parser.add_argument("--pod", required=True, help="the name of this process's pod")
    parser.add_argument("--pod-uid", required=True, help="the uid of this process's pod")
    parser.add_argument("--service-account", required=True, help="the service account that authz pods run as")
    parser.add_argument("--issuer", default=ISSUER, help="`iss` of the cluster's service accounts' tokens (default: %(default)s)")
    parser.add_argument("--audience", default="hopgate", help="the one audience of sidecars' tokens (default: %(default)s)")
    parser.add_argument(
        "--certificate", type=Path, required=True, help="the PEM certificate that sidecars are shown; read again when it changes"
    )
    parser.add_argument("--private-key", type=Path, required=True, help="its PEM key; read again when it changes")
    parser.add_argument(
        "--open-tls-certificate", type=Path, help="the PEM certificate of the CA that signs for TLS opened at the gate; with its key"
    )
    parser.add_argument("--open-tls-key", type=Path, help="its PEM key; both are read again when they change")
    parser.add_argument("--spool", type=Path, required=True, help="the folder that takes the records")
    parser.add_argument("--listen", default="[::]:8443", help="where checks are answered over TLS (default: %(default)s)")
    parser.add_argument("--health", default="[::]:8080", help="where probes are answered, gRPC without TLS (default: %(default)s)")
    parser.add_argument("--resolver", default="[::]:8053", help="where names are answered, UDP and TCP (default: %(default)s)")
    parser.add_argument("--metrics", metavar="IP:PORT", help="where Prometheus finds `/metrics`, HTTP without TLS (default: nowhere)")
    parser.add_argument(
        "--mesh-listen",
        metavar="IP:PORT",
        help="where the Envoys of a mesh are answered, TLS with certificates of both ends (default: nowhere); with the three below",
    )
    parser.add_argument(
        "--mesh-authorities", metavar="FILE", type=Path, help="the PEM authorities that vouch for those Envoys; read again when they change"
    )
    parser.add_argument(
        "--mesh-trust-domain", metavar="DOMAIN", action="append", help="a trust domain whose peers are believed; can be given again"
    )
    parser.add_argument(
        "--mesh-envoy",
        metavar="IDENTITY[=NAMESPACE,...]",
        action="append",
        help="the SPIFFE ID of an Envoy that may ask, and the namespaces of the destinations that it stands before: by default its own, "
        "`*` for all; can be given again",
    )
    parser.add_argument(
        "--connection-seconds", type=float, default=CONNECTION_SECONDS, help="how long a sidecar's connection lives (default: %(default)s)"
    )
    parser.add_argument(
        "--notice-seconds",
        type=float,
        default=NOTICE_SECONDS,
        help="how long after saying `not ready` no new connections come any more (default: %(default)s)",
    )
    parser.add_argument(
        "--settle-seconds",
        type=float,
        default=SETTLE_SECONDS,
        help="how long the other processes may take to see new keys (default: %(default)s)",
    )
    return parser
