"""The API server, as plain mappings: the one module that knows the `kubernetes` package.

Lists and watches one kind in all namespaces or one, reads a Secret by its name and the keys of tokens, and applies a Lease. Requests are
not repeated here, whoever calls knows when. A server that falls silent is noticed by a read timeout, since a watch of a kind that
nobody changes still brings a bookmark each minute (Kubernetes 1.37: the first after 59 to 60 s).
"""

from __future__ import annotations

import http
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import kubernetes.client
import kubernetes.config
import msgspec
import urllib3

from hopgate.kubernetes.api import (
    Body,
    ClientError,
    ConfigurationError,
    Event,
    ExpiredError,
    Listing,
    Manifest,
    RefusedError,
    Stream,
    UnreachableError,
    WatchedKind,
)

CONNECT_SECONDS: Final = 5.0
# For one page of a list.
LIST_SECONDS: Final = 30.0
# Objects on a page: reading one holds up every other thread of the process for some milliseconds, and all at once would for hundreds.
PAGE: Final = 100
SECRET_SECONDS: Final = 5.0
CALL_SECONDS: Final = 5.0
# Longer than the minute between two bookmarks.
SILENCE_SECONDS: Final = 90.0
# The server ends a watch after this, and the next begins where it ended: no connection outlives a change of the servers behind an
# address for ever. client-go asks for 5 to 10 minutes.
WATCH_SECONDS: Final = 480
# One for each kind that is watched and some for Secrets; more are made when needed and not kept.
_CONNECTIONS: Final = 32
# Whose fields these are, in server-side apply.
_FIELD_MANAGER: Final = "hopgate"
# What a server says of an error is shown as far as this.
_SHOWN: Final = 300


class Client:
    """A connection to one API server, for any number of threads."""

    def __init__(self, configuration: kubernetes.client.Configuration) -> None:
        configuration.retries = False
        configuration.connection_pool_maxsize = _CONNECTIONS
        self._api = kubernetes.client.ApiClient(configuration)
        self._core = kubernetes.client.CoreV1Api(self._api)
        self._custom = kubernetes.client.CustomObjectsApi(self._api)

    @classmethod
    def connect(cls, kubeconfig: Path | None = None, context: str | None = None) -> Self:
        """By a kubeconfig and one of its contexts (default: its current one); without one, as the pod that this process is in.

        Raises ConfigurationError; nothing is asked yet.
        """
        configuration = kubernetes.client.Configuration()
        try:
            if kubeconfig is None:
                kubernetes.config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]  # the package's
            else:
                kubernetes.config.load_kube_config(  # type: ignore[no-untyped-call]  # the package's
                    str(kubeconfig), context=context, client_configuration=configuration, persist_config=False
                )
        except (kubernetes.config.ConfigException, OSError) as error:
            where = "a pod's service account" if kubeconfig is None else f"a kubeconfig at {kubeconfig}"
            raise ConfigurationError(f"expected {where}, got: {_cut(str(error))}; name one with --kubeconfig") from error
        return cls(configuration)

    def close(self) -> None:
        """Close the connections that are not in use."""
        self._api.rest_client.close()

    def list(self, kind: WatchedKind) -> Listing:
        """See `Source`."""
        items: list[Manifest] = []
        following: dict[str, str] = {}
        while True:
            page = self._page(kind, following)
            items.extend(_reduced(_named(item, kind), kind) for item in page.get("items") or [])
            token = (page.get("metadata") or {}).get("continue")
            if not token:
                return Listing(items=tuple(items), revision=_revision(page))
            following = {"_continue": token}

    def watch(self, kind: WatchedKind, revision: str) -> Stream:
        """See `Source`."""
        response = _ask(
            lambda: self._request(
                kind,
                watch=True,
                resource_version=revision,
                allow_watch_bookmarks=True,
                timeout_seconds=WATCH_SECONDS,
                _request_timeout=(CONNECT_SECONDS, SILENCE_SECONDS),
            )
        )
        return _Stream(kind, response)

    def read_secret(self, namespace: str, name: str) -> Manifest | None:
        """See `SecretSource`."""
        try:
            response = _ask(
                lambda: self._core.read_namespaced_secret(
                    name, namespace, _preload_content=False, _request_timeout=(CONNECT_SECONDS, SECRET_SECONDS)
                )
            )
        except RefusedError as refused:
            if refused.status == http.HTTPStatus.NOT_FOUND:
                return None
            raise
        return _read_json(response)

    def read_jwks(self) -> Mapping[str, Any]:
        """See `IdentitySource`."""
        return self.call("GET", "/openid/v1/jwks", accept="application/jwk-set+json")

    def apply_lease(self, manifest: Manifest) -> None:
        """See `IdentitySource`."""
        metadata = manifest["metadata"]
        leases = kubernetes.client.CoordinationV1Api(self._api)
        _ask(
            lambda: leases.patch_namespaced_lease(
                metadata["name"],
                metadata["namespace"],
                dict(manifest),
                field_manager=_FIELD_MANAGER,
                force=True,
                _content_type="application/apply-patch+yaml",
                _request_timeout=(CONNECT_SECONDS, SECRET_SECONDS),
            )
        )

    def call(
        self, method: str, path: str, body: Body | None = None, *, content_type: str = "application/json", accept: str = "application/json"
    ) -> Manifest:
        """One request for one object: what is asked of the API server beside lists and watches. Raises ClientError."""
        headers = {"Accept": accept}
        if body is not None:
            headers["Content-Type"] = content_type
        self._api.update_params_for_auth(headers, [], ["BearerToken"], path, method, body)
        url = f"{self._api.configuration.host}{path}"
        timeout = (CONNECT_SECONDS, CALL_SECONDS)
        response = _ask(lambda: self._api.call_api(method, url, headers, body, _request_timeout=timeout))
        found = _read_json(response.response)
        if response.status >= http.HTTPStatus.BAD_REQUEST:
            raise _refusal(response.status, str(found.get("message") or response.reason))
        return found

    def _page(self, kind: WatchedKind, following: Mapping[str, str]) -> dict[str, Any]:
        timeout = (CONNECT_SECONDS, LIST_SECONDS)
        return _read_json(_ask(lambda: self._request(kind, limit=PAGE, _request_timeout=timeout, **following)), _page_of(kind.keep))

    def _request(self, kind: WatchedKind, **options: Any) -> Any:
        if not kind.group:
            listing = getattr(self._core, f"list_{kind.kind.lower()}{'_for_all_namespaces' if kind.namespaced else ''}")
            return listing(field_selector=kind.field, _preload_content=False, **options)
        if kind.namespace is not None:
            return self._custom.list_namespaced_custom_object(
                kind.group, kind.version, kind.namespace, kind.plural, label_selector=kind.label, _preload_content=False, **options
            )
        return self._custom.list_cluster_custom_object(kind.group, kind.version, kind.plural, _preload_content=False, **options)


class _Stream:
    """A watch's response, line by line."""

    def __init__(self, kind: WatchedKind, response: Any) -> None:
        self._kind = kind
        self._response = response

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        # Closed, not given back: what is left of the stream would be read as the answer to the next request.
        self._response.close()

    def __iter__(self) -> Iterator[Event]:
        try:
            for line in self._response:
                yield self._event(line)
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise UnreachableError(_cut(f"the watch of {self._kind.plural} broke off: {error}")) from error

    def stop(self) -> None:
        try:
            self._response.shutdown()
        except (ValueError, RuntimeError, OSError):
            self._response.close()

    def _event(self, line: bytes) -> Event:
        decoded = msgspec.json.decode(line)
        found = decoded["object"]
        if decoded["type"] == "ERROR":
            status = int(found.get("code") or 0)
            raise _refusal(status, f"the watch of {self._kind.plural} ended: {found.get('message')}")
        revision = _revision(found)
        return Event(type=decoded["type"], object=_reduced(_named(found, self._kind), self._kind), revision=revision)


def _ask(request: Callable[[], Any]) -> Any:
    try:
        return request()
    except kubernetes.client.ApiException as error:
        raise _refusal(error.status or 0, _said(error)) from error
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise UnreachableError(_cut(f"the API server does not answer: {error}")) from error


def _refusal(status: int, message: str) -> ClientError:
    # The client gives broken transports as ApiException with status 0.
    if status == 0:
        return UnreachableError(_cut(message))
    return (ExpiredError if status == http.HTTPStatus.GONE else RefusedError)(status, _cut(message), message)


def _said(error: kubernetes.client.ApiException) -> str:
    """The message of a Status object; of anything else only the reason, since its body may hold anything."""
    try:
        return str(msgspec.json.decode(error.body or "")["message"])
    except (ValueError, TypeError, KeyError):
        return f"{error.status} {error.reason}"


def _read_json(response: Any, kind: Any = Any) -> dict[str, Any]:
    """The body as plain values; of what `kind`, a type of msgspec's, does not name nothing is made."""
    try:
        decoded = msgspec.json.decode(response.data, type=kind)
        body = decoded if kind is Any else msgspec.to_builtins(decoded)
    except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
        # Not from the error, which may hold the text that it could not read: a Secret's.
        raise UnreachableError(f"the API server's answer broke off: {type(error).__name__}") from None
    finally:
        response.release_conn()
    if not isinstance(body, dict):
        raise UnreachableError("expected an object from the API server, got something else")
    return body


@lru_cache(maxsize=8)
def _page_of(keep: tuple[tuple[str, str], ...] | None) -> Any:
    """The type of a page of a list whose objects have these fields. To read past a field costs a tenth of making its value."""
    if keep is None:
        return Any
    parts: dict[str, list[tuple[str, Any, Any]]] = {}
    for part, name in keep:
        parts.setdefault(part, []).append((name, Any, msgspec.UNSET))
    kinds = {part: msgspec.defstruct(part.capitalize(), fields) for part, fields in parts.items()}
    item = msgspec.defstruct("Item", [(part, kind | msgspec.UnsetType, msgspec.UNSET) for part, kind in kinds.items()])
    return msgspec.defstruct("Page", [("metadata", dict[str, Any]), ("items", list[item])])  # type: ignore[valid-type]  # made here


def _named(found: dict[str, Any], kind: WatchedKind) -> Manifest:
    """Items of a list of a core kind don't say what they are. Who wrote which field is not kept: it is as large as the object."""
    found.setdefault("kind", kind.kind)
    found.setdefault("apiVersion", kind.api_version)
    metadata = found.get("metadata")
    if isinstance(metadata, dict):
        metadata.pop("managedFields", None)
    return found


def _reduced(found: Manifest, kind: WatchedKind) -> Manifest:
    """What is kept of an object of this kind."""
    if kind.keep is None:
        return found
    kept: dict[str, Any] = {"kind": found["kind"], "apiVersion": found["apiVersion"]}
    for part, name in kind.keep:
        values = found.get(part)
        if isinstance(values, dict) and name in values:
            kept.setdefault(part, {})[name] = values[name]
    return kept


def _revision(found: Mapping[str, Any]) -> str:
    return str((found.get("metadata") or {}).get("resourceVersion") or "")


def _cut(text: str) -> str:
    return text[:_SHOWN]
