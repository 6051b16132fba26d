"""`hopgate envoy config`: what an Envoy that is already there needs to ask this gate."""

from __future__ import annotations

import json
import re
from pathlib import Path

import click

from hopgate.cli.data import default_data_folder

_BELONGS = {
    "http_connection_manager": "in the HTTP connection manager, so that what is judged is what the upstream sees",
    "http_filters": "in its `http_filters`, before the router and before whatever acts on a request",
    "network_filters": "in place of the above where TLS is passed through: before the tcp_proxy, which needs `upstream_connect_mode`",
    "route": "on each route (or virtual host) that leads to the destination",
    "clusters": "in `static_resources`",
    "secrets": "in `static_resources`; Envoy must be able to read the file",
}


@click.group(epilog="Example: hopgate envoy config --destination ToolServer:demo/tickets")
def group() -> None:
    """For those who run Envoy already."""


@group.command(epilog="Example: hopgate envoy config --destination ToolServer:demo/tickets > hopgate.yaml")
@click.option(
    "--data", type=click.Path(path_type=Path), default=default_data_folder, show_default=True, help="The data folder of the gate."
)
@click.option(
    "--address",
    callback=lambda _context, _option, given: None if given is None else _address(given),
    metavar="HOST:PORT",
    help="Ask a cluster's authz here, over TLS, in place of the gate of this machine; with the three files below.",
)
@click.option("--server-name", metavar="NAME", help="The name in authz's certificate, where it is not the HOST of --address.")
@click.option("--authorities", type=click.Path(path_type=Path), help="The PEM file, where Envoy runs, of whom to believe to be authz.")
@click.option("--certificate", type=click.Path(path_type=Path), help="The PEM file, where Envoy runs, of its own certificate: who asks.")
@click.option("--key", type=click.Path(path_type=Path), help="The PEM file of its key.")
@click.option(
    "--destination",
    callback=lambda _context, _option, given: None if given is None else _destination(given),
    help="What this Envoy's routes lead to, KIND:NAMESPACE/NAME. Without it, Host or SNI names the destination.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def config(
    data: Path,
    address: tuple[str, int] | None,
    server_name: str | None,
    authorities: Path | None,
    certificate: Path | None,
    key: Path | None,
    destination: str | None,
    *,
    as_json: bool,
) -> None:
    """Print the filters, headers and limits with which an Envoy of yours asks the gate that `hopgate up` runs, or a cluster's authz.

    The caller is the peer whose client certificate your Envoy verified (`require_client_certificate`), by its SPIFFE ID, so start the
    gate with `--mesh-trust-domain`; in a cluster set `authz.mesh` of the chart. Each part is printed under the name of where it belongs.
    Exit code 0: printed; 2: wrong usage.
    """
    from hopgate.local import folders, mesh_credential  # noqa: PLC0415 - --help needs none of them
    from hopgate.manifests import document  # noqa: PLC0415
    from hopgate.proxy import mesh_bootstrap  # noqa: PLC0415
    from hopgate.proxy.mesh_bootstrap import ClusterAuthz, MachineAuthz  # noqa: PLC0415

    authz: MachineAuthz | ClusterAuthz
    if all(given is None for given in (address, server_name, authorities, certificate, key)):
        authz = MachineAuthz(
            socket=folders.run_base(data) / folders.SHARED_GATE / folders.AUTHZ_SOCKET,
            credential_file=data.resolve() / mesh_credential.FILE,
        )
    elif address is None or authorities is None or certificate is None or key is None:
        raise click.UsageError("expected --address, --authorities, --certificate and --key together, got some of them")
    else:
        host, port = address
        authz = ClusterAuthz(host=host, port=port, name=server_name or host, authorities=authorities, certificate=certificate, key=key)
    spec = mesh_bootstrap.MeshSpec(authz=authz, destination=destination)
    parts = {name: part for name, part in mesh_bootstrap.build_mesh(spec).items() if part}
    if as_json:
        click.echo(json.dumps(parts))
        return
    for name, part in parts.items():
        click.echo(f"# {_BELONGS[name]}\n{document.write({name: part})}")


def _address(text: str) -> tuple[str, int]:
    match = re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9._-]+)):([1-9][0-9]{0,4})", text)
    if match is None or int(match[3]) > 65535:
        raise click.BadParameter(f"expected HOST:PORT such as `hopgate-authz.hopgate.svc:8444`, got `{text[:80]}`")
    return match[1] or match[2], int(match[3])


def _destination(text: str) -> str:
    if re.fullmatch(r"(Agent|ToolServer|ModelProvider):[a-z0-9-]{1,63}/[a-z0-9.-]{1,253}", text) is None:
        raise click.BadParameter(f"expected KIND:NAMESPACE/NAME such as `ToolServer:demo/tickets`, got `{text[:80]}`")
    return text
