"""The credential by which authz knows the Envoys of a mesh: a file in the data folder, for those Envoys to read."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Final

from authz.state import MeshPeers, credential_sha256
from hopgate.local.errors import LocalError

FILE: Final = "mesh-credential"
_MIN_CHARACTERS: Final = 32
_MAX_CHARACTERS: Final = 4096


class MeshCredentialError(LocalError):
    """The file of the mesh's credential can't be used."""

    code = "MeshCredentialUnusable"


def peers(data: Path, trust_domains: tuple[str, ...]) -> MeshPeers | None:
    """Whose peers are believed, with the credential in the data folder, which is made when absent. None without a trust domain.

    Raises MeshCredentialError.
    """
    if not trust_domains:
        return None
    path = data / FILE
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        pass
    except OSError as error:
        raise MeshCredentialError(f"`{path}` can't be written: {error.strerror}", remedy="make room, or name another --data") from error
    else:
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(32))
    try:
        credential = path.read_text(encoding="ascii")
    except (OSError, ValueError) as error:
        raise MeshCredentialError(f"`{path}` can't be read: {error}", remedy="remove it; a new one is made") from error
    # Envoy sends the file as it is, so a line end in it would be a part of the header.
    if not _MIN_CHARACTERS <= len(credential) <= _MAX_CHARACTERS or not credential.isprintable() or " " in credential:
        raise MeshCredentialError(
            f"expected at least {_MIN_CHARACTERS} printable characters and no blank or line end in `{path}`",
            remedy="remove it; a new one is made",
        )
    return MeshPeers(credential_sha256=credential_sha256(credential), trust_domains=trust_domains)
