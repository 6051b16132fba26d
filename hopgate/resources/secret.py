"""Reader of `v1 Secret`, and of references to one of its keys. No message here ever holds a value."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping

from hopgate.identity import names
from hopgate.identity.names import ObjectName
from hopgate.resources import fields
from hopgate.resources.fields import Code, Field, Fields, RefusedError
from hopgate.resources.kinds import Secret, SecretKey, SecretValue

# What Kubernetes accepts as a key of a Secret.
KEY = re.compile(r"[-._a-zA-Z0-9]{1,253}")


def secret(name: ObjectName, manifest: Fields) -> Secret:
    """A `Secret`: `stringData` wins over `data`, as in Kubernetes."""
    manifest.optional("type", fields.phrase, "Opaque")
    manifest.optional("immutable", fields.boolean, False)  # noqa: FBT003 - the field's default
    encoded: Mapping[str, SecretValue] = manifest.optional("data", lambda field: _values(field, _decode), {})
    plain: Mapping[str, SecretValue] = manifest.optional("stringData", lambda field: _values(field, _encode), {})
    return Secret(name=name, data={**encoded, **plain})


def key_reference(field: Field, namespace: str) -> SecretKey:
    """`{name, key}` of a Secret in `namespace`. What was written is not shown: people put secrets here by mistake."""
    reference = Fields(field)
    name = reference.required("name", _name, "unnamed")
    key = reference.required("key", _key, "")
    reference.close()
    return SecretKey(secret=ObjectName(namespace, name), key=key)


def _name(field: Field) -> str:
    value = fields.text(field)
    if not names.is_subdomain(value):
        raise field.refusal(
            Code.INVALID_NAME, "expected the name of a Secret in lower case (letters, digits, `-`, `.`); it is not shown here"
        )
    return value


def _key(field: Field) -> str:
    value = fields.text(field)
    if KEY.fullmatch(value) is None:
        raise field.refusal(Code.INVALID_NAME, "expected a key of a Secret (letters, digits, `-`, `_`, `.`); it is not shown here")
    return value


def _values(field: Field, read: fields.Reader[bytes]) -> Mapping[str, SecretValue]:
    if not isinstance(field.value, dict):
        raise field.wrong_type("a mapping")
    found: dict[str, SecretValue] = {}
    for key, value in field.value.items():
        item = field.child(str(key), value)
        try:
            if not isinstance(key, str) or KEY.fullmatch(key) is None:
                raise item.refusal(Code.INVALID_NAME, "expected a key of letters, digits, `-`, `_` and `.`, at most 253")
            found[key] = SecretValue(read(item))
        except RefusedError as refused:
            item.note(refused)
    return found


def _decode(field: Field) -> bytes:
    """Base64 in its one spelling (RFC 4648 section 3.5): what decodes must encode to the same text."""
    value = fields.text(field)
    try:
        decoded = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        decoded = None
    if decoded is None or base64.b64encode(decoded).decode() != value:
        raise field.refusal(Code.INVALID_BASE64, "expected base64 without line breaks; write plain text under `stringData` instead")
    return decoded


def _encode(field: Field) -> bytes:
    value = fields.text(field)
    try:
        return value.encode()
    except UnicodeEncodeError:
        raise field.refusal(Code.INVALID_VALUE, "expected text that has a UTF-8 form") from None
