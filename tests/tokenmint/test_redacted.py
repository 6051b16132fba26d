"""A marker secret is put into every value that holds secrets, and then looked for wherever values get printed or copied."""

from __future__ import annotations

import copy
import logging
import pickle
import traceback
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hopgate.identity.names import ObjectName
from hopgate.resources.kinds import Credential, SecretKey, SecretValue
from tests.tokenmint import forge
from tests.tokenmint.forge import NOW
from tokenmint import credential, hop_token
from tokenmint.authority import Authority
from tokenmint.errors import TokenError
from tokenmint.keys import KeyRing, SigningKey

MARKER = "marker-4d1f0c7e9b2a4d1f0c7e9b2a!!"
SEED = MARKER[:32].encode()
KEY_FORMS = (SEED.hex(), forge.base64url(SEED), repr(SEED)[2:-1], MARKER)
WHERE = SecretKey(secret=ObjectName("demo", "openai"), key="apiKey")
TOKEN = hop_token.mint(forge.KEY, forge.claims())
AUTHORITY = Authority.create(NOW)
LEAF = AUTHORITY.issue("api.openai.com", NOW)

SECRETS = [
    pytest.param(SigningKey(Ed25519PrivateKey.from_private_bytes(SEED)), KEY_FORMS, id="signing key"),
    pytest.param(KeyRing.create(NOW, lambda: SigningKey(Ed25519PrivateKey.from_private_bytes(SEED))), KEY_FORMS, id="key ring"),
    pytest.param(TOKEN, (TOKEN.reveal(), TOKEN.reveal().split(".")[2], TOKEN.reveal()[:60]), id="hop token"),
    pytest.param(
        credential.header_value(Credential(secret=WHERE, header="authorization", prefix="Bearer "), {WHERE: SecretValue(MARKER.encode())}),
        (MARKER, "Bearer"),
        id="credential header",
    ),
    pytest.param(LEAF, ("BEGIN PRIVATE KEY", LEAF.private_key_pem.reveal().decode().splitlines()[1]), id="leaf"),
    pytest.param(AUTHORITY, ("BEGIN", "PRIVATE"), id="authority"),
]


@pytest.mark.parametrize(("value", "secrets"), SECRETS)
def test_a_secret_does_not_print(value: object, secrets: tuple[str, ...], caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("test").error("value %s %r", value, value)
    try:
        raise RuntimeError(value)
    except RuntimeError as error:
        trace = "".join(traceback.format_exception(error))
    printed = [repr(value), str(value), f"{value}", f"{value!r:>200}", f"{[value]} { ({'k': value}) }", f"{value}", trace, caplog.text]
    for secret in secrets:
        assert not [text for text in printed if secret in text]


@pytest.mark.parametrize(("value", "secrets"), SECRETS)
@pytest.mark.parametrize("copier", [pickle.dumps, copy.deepcopy], ids=["pickle", "deepcopy"])
def test_a_secret_is_neither_pickled_nor_copied(value: object, secrets: tuple[str, ...], copier: Callable[[object], object]) -> None:
    with pytest.raises(TypeError):
        copier(value)


@pytest.mark.parametrize(("value", "secrets"), SECRETS)
def test_a_secret_has_no_dict_to_print(value: object, secrets: tuple[str, ...]) -> None:
    assert not hasattr(value, "__dict__")


def test_what_may_be_seen_is_shown() -> None:
    assert forge.KEY.kid in repr(forge.KEY)
    assert f"{TOKEN}" == "HopToken(redacted)"


def test_the_value_is_there_for_whoever_asks_for_it() -> None:
    assert TOKEN.reveal() == forge.good()


@pytest.mark.parametrize(("name", "token", "code"), list(forge.refused()), ids=[name for name, _, _ in forge.refused()])
def test_the_refusal_of_a_token_does_not_hold_its_signature(name: str, token: str, code: str) -> None:
    with pytest.raises(TokenError) as caught:
        hop_token.verify(token, audience=forge.TICKETS, issuers={forge.ISSUER}, keys=forge.KEYS, now=NOW, binding=forge.BINDING)
    rendered = "".join(traceback.format_exception(caught.value, limit=0))
    parts = [part for part in token.split(".") if len(part) > 40]
    assert not [part for part in parts if part in rendered]
