"""Structural schemas (OpenAPI v3 as Kubernetes has it) of the fields that `hopgate.resources` reads, one for each of its readers.

Patterns, limits and lists are the readers' own values. What OpenAPI can't say is a CEL rule (`x-kubernetes-validations`, with the IP and
URL libraries of Kubernetes 1.31). Fields where people put secrets by mistake have rules and no `pattern`: an error of a pattern shows
what was written, one of a rule does not.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum
from typing import Any, Final

from hopgate.identity import names
from hopgate.resources import destinations, fields, governance, network, secret

Schema = dict[str, Any]

# What `str.isspace` takes for a blank: category Z, and controls.
_BLANK: Final = r"\t-\r\x1c-\x1f\x85\p{Z}"
# What `str.isprintable` takes, but for code points that are not assigned, which RE2 has no class for; the blank apart.
_PRINTABLE: Final = r"[^\p{C}\p{Z}]"
_MAX_LABEL_CHARACTERS: Final = 63
# `[`, an IPv6 address with an IPv4 address at its end, `]:65535`.
_MAX_ADDRESS_CHARACTERS: Final = 53


def rule(expression: str, message: str, *, at: str | None = None) -> Schema:
    """A CEL rule and what is said where it is false; `at` names the field of a mapping that the mistake is shown at."""
    return {"rule": expression, "message": message, **({} if at is None else {"fieldPath": f".{at}"})}


def whole(*patterns: str) -> str:
    """A pattern that the whole value must match, as one of `patterns`."""
    return f"^(?:{'|'.join(patterns)})$"


def cel(text: str) -> str:
    """`text` as a CEL string literal."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def cel_list(texts: Sequence[str]) -> str:
    """A CEL list of strings."""
    return f"[{', '.join(cel(text) for text in texts)}]"


def text(description: str, **more: object) -> Schema:
    """Any string."""
    return {"description": description, "type": "string", **more}


def phrase(description: str, **more: object) -> Schema:
    """As `fields.phrase`: printable, one line, not empty."""
    return text(description, pattern=whole(f" *{_PRINTABLE}(?: |{_PRINTABLE})*"), **more)


def foreign_name(description: str) -> Schema:
    """As the names of tools and models: a phrase without blanks around it."""
    pattern = whole(f"{_PRINTABLE}(?:(?: |{_PRINTABLE})*{_PRINTABLE})?")
    return text(description, maxLength=destinations.MAX_FOREIGN_NAME, pattern=pattern)


def not_blank(description: str) -> Schema:
    """A text with something in it."""
    return text(description, pattern=f"[^{_BLANK}]")


def choice(description: str, options: type[StrEnum], **more: object) -> Schema:
    """One of an enumeration's values."""
    return text(description, enum=[option.value for option in options], **more)


def boolean(description: str, *, default: bool) -> Schema:
    """`true` or `false`."""
    return {"description": description, "type": "boolean", "default": default}


def port(description: str) -> Schema:
    """A TCP port."""
    return {"description": description, "type": "integer", "format": "int32", "minimum": 1, "maximum": network.MAX_PORT}


def mapping(description: str, properties: dict[str, Schema], *, required: Sequence[str] = (), **more: object) -> Schema:
    """A mapping of known fields."""
    needed = {"required": list(required)} if required else {}
    return {"description": description, "type": "object", **needed, "properties": properties, **more}


def free_mapping(description: str) -> Schema:
    """A mapping of anything, kept as it is."""
    return {"description": description, "type": "object", "x-kubernetes-preserve-unknown-fields": True}


def unique_list(description: str, item: Schema, *, at_least: int = 0, **more: object) -> Schema:
    """As `fields.items` of scalars: none of them twice."""
    return {**_bounded_list(description, item, at_least), "x-kubernetes-list-type": "set", **more}


def named_list(description: str, item: Schema) -> Schema:
    """A list of mappings with a `name` each, which no two of them share."""
    return {**_bounded_list(description, item, 0), "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}


def _bounded_list(description: str, item: Schema, at_least: int) -> Schema:
    least = {"minItems": at_least} if at_least else {}
    return {"description": description, "type": "array", **least, "maxItems": fields.MAX_ITEMS, "items": item}


def object_name(description: str) -> Schema:
    """As `network.object_name`."""
    return text(description, maxLength=names.MAX_SUBDOMAIN_LENGTH, pattern=whole(names.SUBDOMAIN.pattern))


def label(description: str) -> Schema:
    """As `network.label`."""
    return text(description, maxLength=_MAX_LABEL_CHARACTERS, pattern=whole(names.LABEL.pattern))


def host() -> Schema:
    """As `network.host`."""
    inside = "|".join(re.escape(suffix) for suffix in network.INSIDE_SUFFIXES)
    return {
        **object_name("A DNS name of the outside in lower case, such as `api.example.com`: no wildcard, no trailing dot, no address."),
        "x-kubernetes-validations": [
            rule(
                f"!self.matches({cel(rf'(^|[.])({inside})$')})",
                "expected a name of the outside: names of the inside are reached by `service`",
            ),
            rule(
                f"!self.matches({cel(r'(^|[.])([0-9]+|0x[0-9a-f]*)$')})",
                "expected a DNS name: an address has no name to check, write it as `address` beside `hosts`",
            ),
        ],
    }


def url_path(description: str) -> Schema:
    """As `network.url_path`."""
    dots = rule("!self.split('/').exists(part, part in ['.', '..'])", "expected a path without `.` and `..`")
    pattern = whole(network.PATH.pattern)
    return text(description, maxLength=network.MAX_PATH_CHARACTERS, pattern=pattern, **{"x-kubernetes-validations": [dots]})


def dial_target(description: str) -> Schema:
    """As `network.dial_target`."""
    ip = "(self.startsWith('[') ? self.split(']')[0].replace('[', '') : self.split(':')[0])"
    port_text = "self.find(':[0-9]{1,5}$')"
    readable = f"self.matches({cel(whole(network.ADDRESS.pattern))}) && isIP({ip}) && ip({ip}).family() == (self.startsWith('[') ? 6 : 4)"
    rules = [
        rule(readable, "expected an IP address with an optional port, such as `127.0.0.1:8080` or `[::1]:8080`"),
        rule(
            f"{port_text} == '' || (int({port_text}.substring(1)) >= 1 && int({port_text}.substring(1)) <= {network.MAX_PORT})",
            f"expected a port from 1 to {network.MAX_PORT}",
        ),
    ]
    for called in dict.fromkeys(called for _, called in network.FORBIDDEN_NETWORKS):
        # `isIP` is false for IPv4 written as IPv6, and `cidr` refuses such a network.
        networks = [found for found, why in network.FORBIDDEN_NETWORKS if why == called and not str(found).startswith("::ffff:")]
        if networks:
            within = " || ".join(f"cidr('{found}').containsIP({ip})" for found in networks)
            rules.append(rule(f"!isIP({ip}) || !({within})", f"expected an address that a hop may go to, got one that is {called}"))
    return text(description, maxLength=_MAX_ADDRESS_CHARACTERS, **{"x-kubernetes-validations": rules})


def ca_bundle(description: str) -> Schema:
    """As `network.ca_bundle`; blanks of other scripts than ASCII between the lines are refused here and not there."""
    end_of_line = r"[ \t\r]*\n\s*"
    certificate = f"-----BEGIN CERTIFICATE-----{end_of_line}(?:[A-Za-z0-9+/]+={{0,2}}{end_of_line})+-----END CERTIFICATE-----"
    form = rf"^\s*{certificate}(?:{end_of_line}{certificate})*\s*$"
    expected = "expected PEM certificates (`-----BEGIN CERTIFICATE-----` to `-----END CERTIFICATE-----`) and nothing else"
    return text(
        description,
        maxLength=network.MAX_BUNDLE_CHARACTERS,
        **{"x-kubernetes-validations": [rule(f"self.matches({cel(form)})", expected)]},
    )


def credential(description: str) -> Schema:
    """As `destinations` reads it: a reference to a Secret's key and the header that carries it."""
    reference = mapping(
        "The Secret, of the same namespace, and which of its keys.",
        {"name": _secret_name(), "key": _secret_key()},
        required=("name", "key"),
    )
    properties = {"secretRef": reference, "header": _credential_header(), "prefix": _credential_prefix()}
    return mapping(description, properties, required=("secretRef", "header"))


def _hidden(description: str, limit: int, *rules: Schema, **more: object) -> Schema:
    """A text of which no error shows what was written."""
    return text(description, maxLength=limit, **{"x-kubernetes-validations": list(rules)}, **more)


def _secret_name() -> Schema:
    matches = f"self.matches({cel(whole(names.SUBDOMAIN.pattern))})"
    message = "expected the name of a Secret in lower case (letters, digits, `-`, `.`); it is not shown here"
    return _hidden("The Secret's name.", names.MAX_SUBDOMAIN_LENGTH, rule(matches, message))


def _secret_key() -> Schema:
    matches = f"self.matches({cel(whole(secret.KEY.pattern))})"
    message = "expected a key of a Secret (letters, digits, `-`, `_`, `.`); it is not shown here"
    return _hidden("The key in the Secret.", names.MAX_SUBDOMAIN_LENGTH, rule(matches, message))


def _credential_header() -> Schema:
    taken = cel_list(sorted(network.FORBIDDEN_HEADERS))
    own = " || ".join(f"self.lowerAscii().startsWith({cel(prefix)})" for prefix in network.OWN_PREFIXES)
    return _hidden(
        "The header that carries the credential, such as `authorization`.",
        network.MAX_HEADER_CHARACTERS,
        rule(
            f"self.matches({cel(whole(network.TOKEN.pattern))})",
            "expected the name of an HTTP header, such as `authorization` (it is not shown here)",
        ),
        rule(f"!(self.lowerAscii() in {taken})", "expected a header that may carry a credential, got one that HTTP itself uses"),
        rule(f"!({own})", "expected a header that may carry a credential, got one that the gate itself uses"),
    )


def _credential_prefix() -> Schema:
    return _hidden(
        "Stands before the secret in the header, such as `Bearer ` with the blank at its end.",
        network.MAX_HEADER_CHARACTERS,
        rule(
            f"self.matches({cel(whole(network.FIELD_VALUE_START.pattern))})",
            "expected printable ASCII characters that don't begin with a blank, such as `Bearer `",
        ),
        default="",
    )


def key_url(description: str) -> Schema:
    """As `governance` reads `jwksURI`."""
    hosts = "|".join(re.escape(f"[{found}]" if ":" in found else found) for found in sorted(governance.LOOPBACK_HOSTS))
    readable = (
        "isURL(self) && url(self).getHostname() != '' && self.matches('^[!-~]+$') && !self.contains('#')"
        " && !self.matches('^[^/?#]*//[^/?#]*@') && (url(self).getPort() == '' || int(url(self).getPort()) <= 65535)"
    )
    # By pattern: the API server takes no length of what `url` gives for granted, and so refuses a rule that reads it.
    safe = rf"^(?i:https://|http://({hosts})(:[0-9]*)?([/?]|$))"
    rules = [
        rule(readable, "expected an address such as `https://idp.example.com/keys`"),
        rule(f"self.matches({cel(safe)})", "expected an `https://` address (`http://` only for this machine's own)"),
    ]
    return phrase(description, maxLength=governance.MAX_URL_CHARACTERS, **{"x-kubernetes-validations": rules})


def key_set(description: str) -> Schema:
    """As `governance` reads `jwks`: public keys only."""
    private = sorted(governance.PRIVATE_MEMBERS)
    key = {
        **free_mapping("A public key (RFC 7517)."),
        "required": ["kty"],
        "properties": {
            "kty": text("The kind of key.", enum=list(governance.KEY_TYPES)),
            **{member: text("Private: refused.") for member in private},
        },
        "x-kubernetes-validations": [
            rule(
                " && ".join(f"!has(self.{member})" for member in private),
                "expected a public key, got one with private or shared parts: take them out",
            )
        ],
    }
    keys = {**_bounded_list("The keys.", key, 1), "x-kubernetes-list-type": "atomic"}
    return {**free_mapping(description), "required": ["keys"], "properties": {"keys": keys}}
