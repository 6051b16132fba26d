"""Certificates of opened TLS for the pods of a cluster: signed with the CA that is kept outside, handed to who is known by a token.

A name's certificate goes to a stream whose token a check would take, for as long as it would: the pod exists and its service account is an
Agent's. Which names have one is the registry's to say. Its key is made here and known to nobody else; after a restart it is another.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final

from authz.certificates import CallerUnknownError, Streams
from authz.workloads import Refusal, Workloads
from hopgate.resources.registry import Registry
from hopgate.tls_files import KeyPair, TlsFiles
from tokenmint.authority import Authority, Leaf
from tokenmint.errors import AuthorityUnusableError

# Envoy has a stream for each name that programs asked for. A stream costs some tens of KB.
MAX_STREAMS: Final = 8192
# So that one pod's names can't take the others' places.
MAX_STREAMS_OF_A_POD: Final = 128

_log = logging.getLogger(__name__)


class OpenTls:
    """The desk that sidecars ask. `workloads` and `registry` give what is in force."""

    def __init__(
        self,
        certificate: Path,
        private_key: Path,
        *,
        workloads: Callable[[], Workloads],
        registry: Callable[[], Registry],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Raises TlsFilesError and AuthorityUnusableError: without a CA there is nothing to hand out."""
        self._files = TlsFiles(certificate, private_key)
        self._authority = _load(self._files.pair)
        self._workloads = workloads
        self._registry = registry
        self._clock = clock
        self._streams = Streams(limit=MAX_STREAMS, limit_each=MAX_STREAMS_OF_A_POD, clock=clock)

    async def serve(self, requests: AsyncIterator[bytes], credential: str | None, /) -> AsyncIterator[bytes]:
        """See `server.CertificateDesk`."""

        def admit() -> None:
            found = self._workloads().identify(credential, int(self._clock()))
            if isinstance(found, Refusal):
                raise CallerUnknownError(f"{found.message} ({found.code})")

        caller = hashlib.sha256((credential or "").encode(errors="surrogateescape")).hexdigest()
        async for response in self._streams.serve(requests, self._issue, admit=admit, caller=caller):
            yield response

    @property
    def streams(self) -> int:
        """How many streams are open."""
        return len(self._streams)

    @property
    def ca_ends_at(self) -> int:
        """When the CA ends (Unix seconds)."""
        return self._files.pair.expires_at

    def end(self) -> None:
        """See `server.CertificateDesk`."""
        self._streams.end()

    def refresh(self) -> None:
        """Look at every name again: call it when the registry has changed."""
        self._streams.refresh()

    def expel(self) -> None:
        """End the streams of who is unknown by now. About 2 µs for each stream."""
        self._streams.expel()

    def _issue(self, host: str) -> Leaf | None:
        """Raises AuthorityError."""
        if not self._registry().opens(host):
            return None
        changed = self._files.changed()
        if changed is not None:
            try:
                self._authority = _load(changed)
            except AuthorityUnusableError as error:
                _log.error("the authority in force stays: %s (%s)", error, error.code)
        return self._authority.issue(host, int(self._clock()))


def _load(pair: KeyPair) -> Authority:
    return Authority.load(pair.certificate_pem, pair.private_key_pem)
