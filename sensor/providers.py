"""Model APIs by the names of their hosts, and the packages that agents are made of: a data file, which users can add to.

    providers:
      - name: Example
        hosts: [api.example.com]       # this name and all below it; `*` stands for any text within one label
    packages:
      - name: Example SDK
        is: SDK                        # or Agent: the program itself is one
        paths: [example_sdk]           # folder below site-packages, dist-packages or node_modules
    variables: [EXAMPLE_API_KEY]       # names of variables that hold a key

Names are matched label by label from the right: `api.openai.com` is not `notapi.openai.com`, and `openai.com.example.org` is neither.
A file is taken whole or refused with every mistake and its line.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeVar

from hopgate import variables as known_variables
from hopgate.identity import names
from hopgate.manifests import document
from hopgate.resources import fields
from hopgate.resources.fields import Code, Field, Fields, RefusedError

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# `name`, or `@scope/name` of npm.
_PACKAGE = re.compile(r"(?:@[a-z0-9][a-z0-9._-]*/)?[A-Za-z0-9_][A-Za-z0-9._-]*")
_FOLDERS = re.compile(r"/(?:site-packages|dist-packages|node_modules)/((?:@[^/]+/)?[^/]+)")
# Keys of a whole cloud: they say nothing of models.
_GENERAL_VARIABLES: Final = frozenset({"AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"})
# The wildcard's place in a name that is otherwise one.
_STAND_IN: Final = "x"

T = TypeVar("T")


class PackageKind(StrEnum):
    """What running a package's files says."""

    SDK = "SDK"
    AGENT = "Agent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """A model API and the hosts it is reached at."""

    name: str
    hosts: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """Files whose path tells of a model SDK, an agent framework, or an agent."""

    name: str
    kind: PackageKind
    paths: tuple[str, ...]


class ProvidersError(ValueError):
    """A file of providers can't be taken; `mistakes` has one line for each mistake, with its place."""

    code = "ProvidersInvalid"
    remedy = "mend the file; docs/reference/evidence.md has its form"

    def __init__(self, source: str, mistakes: Iterable[str]) -> None:
        self.mistakes = tuple(mistakes)
        super().__init__("\n".join(f"{source}:{mistake}" for mistake in self.mistakes))


class Providers:
    """What is known of model APIs. Immutable; `extended` gives another one."""

    def __init__(self, providers: Iterable[Provider], packages: Iterable[Package], variables: Iterable[str]) -> None:
        self.providers = tuple(providers)
        self.packages = tuple(packages)
        self.variables = frozenset(variables)
        self._by_ending: dict[str, list[tuple[re.Pattern[str], Provider]]] = {}
        for provider in self.providers:
            for host in provider.hosts:
                self._by_ending.setdefault(_ending(host), []).append((_pattern(host), provider))
        self._by_path = {path: package for package in self.packages for path in package.paths}

    def provider_of(self, host: str) -> Provider | None:
        """Whose model API `host` is, by its name alone (any case, with or without the last dot)."""
        name = host.lower().removesuffix(".")
        for pattern, provider in self._by_ending.get(_ending(name), ()):
            if pattern.fullmatch(name):
                return provider
        return None

    def package_of(self, path: str) -> Package | None:
        """Whose file this is, by the innermost folder of packages on its path."""
        for found in reversed(_FOLDERS.findall(path)):
            package = self._by_path.get(found)
            if package is not None:
                return package
        return None

    def extended(self, other: Providers) -> Providers:
        """Both together; what `other` says of a host comes first."""
        return Providers(other.providers + self.providers, self.packages + other.packages, self.variables | other.variables)


def read(data: bytes, source: str) -> Providers:
    """The providers that a file's bytes hold. `source` is its name, for mistakes. Raises ProvidersError."""
    reading = document.read(data)
    if reading.mistakes:
        raise ProvidersError(source, (f"{_place(mistake.position)}: {mistake.message} ({mistake.code})" for mistake in reading.mistakes))
    if len(reading.documents) != 1:
        raise ProvidersError(source, (f"1:1: expected one document with `providers`, got {len(reading.documents)}",))
    found = reading.documents[0]
    mistakes: list[fields.FieldError] = []
    root = Field(found.value, (), mistakes)
    made = _noting(root, _providers)
    if made is None or mistakes:
        raise ProvidersError(source, (f"{_place(found.layout.locate(mistake.path))}: {mistake}" for mistake in mistakes))
    return made


def built_in(data: bytes) -> Providers:
    """hopgate's own file, with the names of keys that hopgate knows anyway. Raises ProvidersError."""
    return read(data, "providers.yaml").extended(Providers((), (), known_variables.PROVIDER_KEYS - _GENERAL_VARIABLES))


def _place(position: document.Position) -> str:
    return f"{position.line}:{position.column}"


def _noting(field: Field, read_field: fields.Reader[T]) -> T | None:
    try:
        return read_field(field)
    except RefusedError as refused:
        field.note(refused)
        return None


def _providers(field: Field) -> Providers:
    entries = Fields(field)
    providers: tuple[Provider, ...] = entries.optional("providers", fields.items(_provider), ())
    packages: tuple[Package, ...] = entries.optional("packages", fields.items(_package), ())
    variables: tuple[str, ...] = entries.optional("variables", fields.items(_variable), ())
    entries.close()
    _refuse_repeated(entries, providers)
    return Providers(providers, packages, variables)


def _refuse_repeated(entries: Fields, providers: tuple[Provider, ...]) -> None:
    owners: dict[str, str] = {}
    for provider in providers:
        for host in provider.hosts:
            owner = owners.setdefault(host, provider.name)
            if owner != provider.name:
                entries.refuse(
                    "providers", Code.REPEATED, f"expected each host once, got {fields.quote(host)} of `{owner}` and `{provider.name}`"
                )


def _provider(field: Field) -> Provider:
    entries = Fields(field)
    made = Provider(name=entries.required("name", fields.phrase, ""), hosts=entries.required("hosts", fields.items(_host, at_least=1), ()))
    entries.close()
    return made


def _package(field: Field) -> Package:
    entries = Fields(field)
    made = Package(
        name=entries.required("name", fields.phrase, ""),
        kind=entries.required("is", fields.choice(PackageKind), PackageKind.SDK),
        paths=entries.required("paths", fields.items(_path, at_least=1), ()),
    )
    entries.close()
    return made


def _host(field: Field) -> str:
    """A name of two labels or more, the last two in plain: a file must not claim all of `.com`."""
    value = fields.text(field)
    labels = value.split(".")
    plain = value.replace("*", _STAND_IN)
    if not names.is_subdomain(plain) or len(labels) < 2 or "*" in ".".join(labels[-2:]) or labels[-1].isdigit():
        raise field.refusal(
            Code.INVALID_HOST,
            f"expected a DNS name in lower case such as `api.example.com` or `*.api.example.com`, got {fields.quote(value)}",
        )
    return value


def _path(field: Field) -> str:
    return _matching(field, _PACKAGE, "a package's folder such as `example_sdk` or `@example/sdk`")


def _variable(field: Field) -> str:
    return _matching(field, _VARIABLE, "a variable's name such as `EXAMPLE_API_KEY`")


def _matching(field: Field, pattern: re.Pattern[str], expected: str) -> str:
    value = fields.text(field)
    if pattern.fullmatch(value) is None:
        raise field.refusal(Code.INVALID_NAME, f"expected {expected}, got {fields.quote(value)}")
    return value


def _ending(name: str) -> str:
    """The last two labels, which are always plain in a pattern."""
    return ".".join(name.rsplit(".", 2)[-2:])


def _pattern(host: str) -> re.Pattern[str]:
    labels = (r"[^.]+".join(map(re.escape, label.split("*"))) for label in host.split("."))
    return re.compile(r"(?:[^.]+\.)*" + r"\.".join(labels))
