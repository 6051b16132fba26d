"""A forge of hop tokens: good ones, and every kind of bad one that is known, made without the mint.

`python -m tests.tokenmint.forge` writes `vectors/hop_tokens.json`, which tests of any level read. All keys come from fixed
seeds and Ed25519 is deterministic, so the file changes only when the wire format or the list of attacks does.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hopgate.identity.names import DestinationKind, DestinationName, ObjectName, User
from tokenmint.hop_claims import HopClaims, RequestBinding
from tokenmint.keys import PublicKey, SigningKey

NOW = 1_800_000_000
ISSUER = "hopgate"
FRONT = ObjectName("demo", "front")
PLANNER = ObjectName("demo", "planner")
TICKETS = DestinationName(DestinationKind.TOOL_SERVER, ObjectName("demo", "tickets"))
ALICE = User(issuer="https://idp.example", subject="alice", groups=("finance", "ops"))
BINDING = RequestBinding.of("POST", "tickets.demo.svc:8080", "/mcp?session=1", b'{"method":"tools/call"}')

PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
STRANGER = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
KEY = SigningKey(PRIVATE)
KEYS = {KEY.kid: PublicKey(KEY.public, NOW + 3600)}
VECTORS = Path(__file__).parent / "vectors" / "hop_tokens.json"

Json = dict[str, Any]


def claims(**changes: Any) -> HopClaims:
    """The claims of a usual hop: the front agent, then the planner, for alice, to the tickets server."""
    usual: Json = {
        "issuer": ISSUER,
        "user": ALICE,
        "actors": (PLANNER, FRONT),
        "audience": TICKETS,
        "token_id": "0123456789abcdef0123456789abcdef",
        "transaction": "fedcba9876543210fedcba9876543210",
        "issued_at": NOW,
        "expires_at": NOW + 60,
        "binding": BINDING,
    }
    return HopClaims(**(usual | changes))


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def compact_json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def header(**changes: Any) -> Json:
    """The header of a good token; a change to None leaves the member out."""
    return _changed({"alg": "EdDSA", "kid": KEY.kid, "typ": "hop+jwt"}, changes)


def payload(**changes: Any) -> Json:
    """The payload of a good token, in its order; a change to None leaves the member out."""
    usual = {
        "iss": ISSUER,
        "sub": "user:https://idp.example#alice",
        "act": {"sub": "agent:demo/planner", "act": {"sub": "agent:demo/front"}},
        "aud": "ToolServer:demo/tickets",
        "iat": NOW,
        "exp": NOW + 60,
        "jti": "0123456789abcdef0123456789abcdef",
        "txn": "fedcba9876543210fedcba9876543210",
        "groups": ["finance", "ops"],
        "req": request(),
    }
    return _changed(usual, changes)


def request(**changes: Any) -> Json:
    usual = {
        "method": "POST",
        "authority": "tickets.demo.svc:8080",
        "path_sha256": base64url(hashlib.sha256(b"/mcp?session=1").digest()),
        "body_sha256": base64url(hashlib.sha256(b'{"method":"tools/call"}').digest()),
    }
    return _changed(usual, changes)


def sign(header: Json | bytes, payload: Json | bytes, key: Ed25519PrivateKey = PRIVATE) -> str:
    """A compact JWS over exactly these bytes."""
    signed = _signed(header, payload)
    return f"{signed}.{base64url(key.sign(signed.encode()))}"


def good(**changes: Any) -> str:
    return sign(header(), payload(**changes))


def accepted() -> Iterator[tuple[str, str]]:
    """Tokens that are good for TICKETS, BINDING and NOW."""
    yield "a user and two agents", good()
    yield "a user without groups", good(groups=None)
    yield "one agent on its own behalf", good(sub="agent:demo/planner", act=None, groups=None)
    yield "two agents on their own behalf", good(sub="agent:demo/front", act={"sub": "agent:demo/planner"}, groups=None)
    yield "eight agents", good(act=nested([f"agent:demo/a{number}" for number in range(8)]))
    yield "the longest life", good(exp=NOW + 120)
    yield "issued as far ahead as clocks may differ", good(iat=NOW + 30, exp=NOW + 90)
    yield "ended as lately as clocks may differ", good(iat=NOW - 89, exp=NOW - 29)
    yield "a user whose id holds the separator", good(sub="user:https://idp.example#a#b")
    yield "a user whose id is not ASCII", good(sub="user:https://idp.example#zoë")


def refused() -> Iterator[tuple[str, str, str]]:
    """Name, token, code of the refusal."""
    for part in (_algorithms, _keys, _headers, _signatures, _spellings, _payload_spellings, _claim_types, _times, _chains, _others):
        yield from part()


def nested(agents: list[str]) -> Json:
    """`act` of these agents, the first outermost."""
    act: Json | None = None
    for agent in reversed(agents):
        act = {"sub": agent} if act is None else {"sub": agent, "act": act}
    assert act is not None
    return act


def _algorithms() -> Iterator[tuple[str, str, str]]:
    unsigned = _signed(header(alg="none"), payload())
    yield "none, with an empty signature", f"{unsigned}.", "TokenMalformed"
    yield "none, with a signature", f"{unsigned}.AA", "TokenAlgorithm"
    for name in ("None", "nOnE", "NONE"):
        yield f"none spelled {name}", f"{_signed(header(alg=name), payload())}.AA", "TokenAlgorithm"
    raw = KEY.public
    pem = PRIVATE.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    for name, secret in (("the raw public key", raw), ("the public key in PEM", pem), ("an empty key", b"")):
        yield f"HS256 with {name}", _hmac("HS256", secret), "TokenAlgorithm"
        yield f"HMAC with {name}, called EdDSA", _hmac("EdDSA", secret), "TokenSignature"
    for name in ("Ed25519", "Ed448", "ES256", "RS256", "PS256", "eddsa", "EdDSA ", ""):
        yield f"algorithm {name!r}", sign(header(alg=name), payload()), "TokenAlgorithm"
    yield "algorithm as an array", sign(header(alg=["EdDSA"]), payload()), "TokenAlgorithm"
    yield "no algorithm", sign(header(alg=None), payload()), "TokenAlgorithm"


def _keys() -> Iterator[tuple[str, str, str]]:
    stranger = SigningKey(STRANGER)
    jwk = {"kty": "OKP", "crv": "Ed25519", "x": base64url(stranger.public)}
    yield "a stranger's key under its own id", sign(header(kid=stranger.kid), payload(), STRANGER), "TokenKeyUnknown"
    yield "a stranger's key under our id", sign(header(), payload(), STRANGER), "TokenSignature"
    yield "an embedded key", sign(header(jwk=jwk), payload(), STRANGER), "TokenKeyUnknown"
    yield "an embedded key and no id", sign(header(kid=None, jwk=jwk), payload(), STRANGER), "TokenKeyUnknown"
    for name in ("jku", "x5u"):
        yield f"a key by address ({name})", sign(header(**{name: "https://keys.example/jwks"}), payload(), STRANGER), "TokenKeyUnknown"
    yield "a certificate chain", sign(header(x5c=["MIIB"]), payload(), STRANGER), "TokenKeyUnknown"
    for kid in ("../../dev/null", "' OR 1=1 --", "|id", KEY.kid + "\n", KEY.kid + "\0", KEY.kid.lower(), "", "A" * 300):
        yield f"key id {kid[:50]!r}", sign(header(kid=kid), payload()), "TokenKeyUnknown"
    yield "no key id", sign(header(kid=None), payload()), "TokenMalformed"
    yield "key id as a number", sign(header(kid=0), payload()), "TokenMalformed"
    yield "key id as an array", sign(header(kid=[KEY.kid]), payload()), "TokenMalformed"


def _headers() -> Iterator[tuple[str, str, str]]:
    for kind in ("JWT", "at+jwt", "HOP+JWT", "application/hop+jwt", "hop+jwt ", "dpop+jwt", ""):
        yield f"type {kind!r}", sign(header(typ=kind), payload()), "TokenType"
    yield "no type", sign(header(typ=None), payload()), "TokenType"
    yield "a critical extension", sign(header(crit=["exp"], exp=NOW + 60), payload()), "TokenMalformed"
    yield "an unencoded payload (b64)", sign(header(b64=False, crit=["b64"]), payload()), "TokenMalformed"
    yield "a deflated payload", sign(header(zip="DEF"), zlib.compress(compact_json(payload()))), "TokenMalformed"
    yield "another header member", sign(header(cty="JWT"), payload()), "TokenMalformed"
    text = compact_json(header()).decode()
    yield "a repeated algorithm", sign(text.replace("{", '{"alg":"none",', 1).encode(), payload()), "TokenMalformed"
    yield "a repeated type", sign(text.replace("}", ',"typ":"hop+jwt"}').encode(), payload()), "TokenMalformed"
    yield "header members in another order", sign({"typ": "hop+jwt", "alg": "EdDSA", "kid": KEY.kid}, payload()), "TokenMalformed"
    yield "white space in the header's JSON", sign(text.replace(",", ", ").encode(), payload()), "TokenMalformed"
    yield "an escape in the header's JSON", sign(text.replace("EdDSA", "E\\u0064DSA").encode(), payload()), "TokenMalformed"
    yield "a line end after the header's JSON", sign((text + "\n").encode(), payload()), "TokenMalformed"
    yield "an array as header", sign(b"[]", payload()), "TokenMalformed"
    yield "a header that is not UTF-8", sign(b'{"alg":"\xff"}', payload()), "TokenMalformed"
    yield "a header nested beyond any parser", sign(b"[" * 4000, payload()), "TokenMalformed"


def _signatures() -> Iterator[tuple[str, str, str]]:
    signed, _, signature = good().rpartition(".")
    raw = base64.urlsafe_b64decode(signature + "==")
    order = 2**252 + 27742317777372353535851937790883648493  # RFC 8032 section 5.1: S must be below it
    added = raw[:32] + (int.from_bytes(raw[32:], "little") + order).to_bytes(32, "little")
    yield "a signature of zeros", f"{signed}.{base64url(bytes(64))}", "TokenSignature"
    yield "a signature cut short", f"{signed}.{base64url(raw[:-1])}", "TokenSignature"
    yield "a signature with a byte more", f"{signed}.{base64url(raw + bytes(1))}", "TokenSignature"
    yield "a signature with S beyond the order", f"{signed}.{base64url(added)}", "TokenSignature"
    yield "the signature of another payload", f"{_signed(header(), payload(jti='x' * 32))}.{signature}", "TokenSignature"


def _spellings() -> Iterator[tuple[str, str, str]]:
    token = good()
    first, second, third = token.split(".")
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    sibling = alphabet[alphabet.index(third[-1]) + 1]
    changed = {
        "padding on the signature": f"{token}==",
        "half the padding": f"{token}=",
        "padding on every segment": ".".join(part + "=" * (-len(part) % 4) for part in (first, second, third)),
        "padding inside": f"{first}.{second[:8]}=={second[8:]}.{third}",
        "bits that don't count": f"{first}.{second}.{third[:-1]}{sibling}",
        "a space before": f" {token}",
        "a space after": f"{token} ",
        "a line end after": f"{token}\n",
        "a line end inside": f"{first}.{second[:20]}\r\n{second[20:]}.{third}",
        "a tab inside": f"{first[:4]}\t{first[4:]}.{second}.{third}",
        "a NUL after": f"{token}\0",
        "letters beyond ASCII": token.replace("A", "\uff21"),
        "a scheme before": f"Bearer {token}",
        "a dot more": f"{token}.",
        "a dot before": f".{token}",
        "four segments": f"{token}.{third}",
        "five segments, as encrypted tokens have": f"{first}..{second}.{third}.AA",
        "two segments": f"{first}.{second}",
        "a detached payload": f"{first}..{third}",
        "nothing": "",
        "dots alone": "..",
        "two tokens": f"{token},{token}",
        "the JSON form": compact_json({"protected": first, "payload": second, "signature": third}).decode(),
    }
    for name, text in changed.items():
        yield name, text, "TokenMalformed"
    standard = sign(header(), payload(jti="?" * 32)).split(".")
    yield "base64 of the other alphabet", ".".join(part.replace("-", "+").replace("_", "/") for part in standard), "TokenMalformed"
    yield "longer than any", sign(header(), payload(jti="x" * 9000)), "TokenMalformed"


def _payload_spellings() -> Iterator[tuple[str, str, str]]:
    text = compact_json(payload()).decode()
    changed = {
        "a repeated audience": text.replace("{", '{"aud":"ToolServer:demo/tickets",', 1),
        "a repeated subject": text[:-1] + ',"sub":"user:https://idp.example#bob"}',
        "a repeated actor inside": text.replace('{"sub":"agent:demo/front"}', '{"sub":"agent:demo/evil","sub":"agent:demo/front"}'),
        "claims in another order": compact_json(dict(reversed(payload().items()))).decode(),
        "an unknown claim": compact_json(payload(scope="all")).decode(),
        "a start that hop tokens do not have": compact_json(payload(nbf=NOW)).decode(),
        "white space": text.replace(":", ": ", 1),
        "white space after": text + " ",
        "an escaped letter": text.replace("alice", "\\u0061lice"),
        "an escaped slash": text.replace("demo/planner", "demo\\/planner"),
        "a time with an exponent": text.replace(str(NOW + 60), "1.80000006e9"),
        "a time with a fraction": text.replace(str(NOW + 60), f"{NOW + 60}.0"),
        "a time as text": text.replace(str(NOW + 60), f'"{NOW + 60}"'),
        "a time with a huge exponent": text.replace(str(NOW + 60), "1e999"),
        "a time of 400 digits": text.replace(str(NOW + 60), "9" * 400),
        "a start of 400 digits": text.replace(f"{NOW},", "9" * 400 + ","),
        "a time that is not a number": text.replace(str(NOW + 60), "NaN"),
        "a time with a leading zero": text.replace(str(NOW + 60), f"0{NOW + 60}"),
        "a chain that is null": text.replace('{"sub":"agent:demo/front"}', "null"),
        "no groups, spelled out": text.replace('["finance","ops"]', "[]"),
        "an array": "[]",
        "text": '"hopgate"',
        "nothing at all": " ",
        "a byte order mark": "\ufeff" + text,
        "a comment": text[:-1] + "/**/}",
    }
    for name, spelled in changed.items():
        yield f"payload: {name}", sign(header(), spelled.encode()), "TokenMalformed"
    yield "payload: not UTF-8", sign(header(), text.replace("alice", "\udcff").encode("utf-8", "surrogateescape")), "TokenMalformed"
    yield "payload: a lone surrogate", sign(header(), text.replace("alice", "\\ud800").encode()), "TokenMalformed"


def _claim_types() -> Iterator[tuple[str, str, str]]:
    for name in ("iss", "sub", "aud", "iat", "exp", "jti", "txn", "req"):
        yield f"without {name}", good(**{name: None}), "TokenMalformed"
        yield f"{name} as true", good(**{name: True}), "TokenMalformed"
    yield "an id with a line end", good(jti="x\n"), "TokenMalformed"
    yield "an empty id", good(jti=""), "TokenMalformed"
    yield "an id of 65 characters", good(jti="x" * 65), "TokenMalformed"
    yield "a transaction of 65 characters", good(txn="x" * 65), "TokenMalformed"
    yield "an audience in an array", good(aud=["ToolServer:demo/tickets"]), "TokenAudience"
    yield "two audiences", good(aud=["ToolServer:demo/tickets", "ToolServer:demo/mail"]), "TokenAudience"
    yield "no audience in an array", good(aud=[]), "TokenAudience"


def _times() -> Iterator[tuple[str, str, str]]:
    yield "expired", good(iat=NOW - 90, exp=NOW - 30), "TokenExpired"
    yield "issued in the future", good(iat=NOW + 31, exp=NOW + 91), "TokenNotYetValid"
    yield "a life of 121 s", good(exp=NOW + 121), "TokenLife"
    yield "a life of nothing", good(exp=NOW), "TokenLife"
    yield "an end before the start", good(exp=NOW - 1), "TokenLife"
    yield "an end in the far future", good(exp=2**53 - 1), "TokenLife"
    yield "a start at the beginning of time", good(iat=0), "TokenLife"
    yield "a start before it", good(iat=-1), "TokenMalformed"
    yield "an end that a double does not hold", good(exp=2**53), "TokenMalformed"
    yield "a start of 64 bits", good(iat=2**64), "TokenMalformed"


def _chains() -> Iterator[tuple[str, str, str]]:
    front, planner = "agent:demo/front", "agent:demo/planner"
    yield "nine agents", good(act=nested([f"agent:demo/a{number}" for number in range(9)])), "TokenChain"
    yield "a chain nested 200 deep", good(act=nested(["agent:d/a"] * 200)), "TokenChain"
    yield "an agent twice in a row", good(act=nested([planner, planner])), "TokenChain"
    yield "an agent twice", good(act=nested([planner, front, planner])), "TokenChain"
    yield "the subject as its own actor", good(sub=planner, act=nested([planner]), groups=None), "TokenChain"
    yield "the subject further back", good(sub=planner, act=nested([front, planner]), groups=None), "TokenChain"
    yield "a user and no agent", good(act=None), "TokenChain"
    yield "a user as actor", good(act=nested(["user:https://idp.example#alice"])), "TokenChain"
    yield "an actor without its kind", good(act=nested(["demo/planner"])), "TokenChain"
    yield "an actor with a path", good(act=nested(["agent:demo/../planner"])), "TokenChain"
    yield "an actor in upper case", good(act=nested(["agent:demo/Planner"])), "TokenChain"
    yield "a subject without its kind", good(sub="demo/front", groups=None), "TokenChain"
    yield "an actor without a subject", good(act={}), "TokenMalformed"
    yield "an actor with another claim", good(act={"sub": planner, "iss": "x"}), "TokenMalformed"
    yield "a chain as an array", good(act=[{"sub": planner}]), "TokenMalformed"


def _others() -> Iterator[tuple[str, str, str]]:
    for audience in ("ToolServer:demo/mail", "ToolServer:other/tickets", "Agent:demo/tickets", "toolserver:demo/tickets", "", "*"):
        yield f"for {audience or 'nobody'}", good(aud=audience), "TokenAudience"
    yield "of another issuer", good(iss="https://idp.example"), "TokenIssuer"
    yield "of the issuer in upper case", good(iss="HOPGATE"), "TokenIssuer"
    yield "a user without an id", good(sub="user:https://idp.example#"), "TokenUser"
    yield "a user without a separator", good(sub="user:alice"), "TokenUser"
    yield "groups without a user", good(sub="agent:demo/front", act={"sub": "agent:demo/planner"}), "TokenUser"
    yield "a group without a name", good(groups=[""]), "TokenUser"
    yield "more groups than any user has", good(groups=["g"] * 129), "TokenUser"
    changed = {
        "another method": {"method": "GET"},
        "the method in lower case": {"method": "post"},
        "another authority": {"authority": "mail.demo.svc:8080"},
        "another path": {"path_sha256": base64url(hashlib.sha256(b"/mcp").digest())},
        "another body": {"body_sha256": base64url(hashlib.sha256(b"").digest())},
        "no body": {"body_sha256": ""},
    }
    for name, change in changed.items():
        yield f"bound to {name}", good(req=request(**change)), "TokenBinding"
    yield "bound to a request without a body", good(req=request(body_sha256=None)), "TokenMalformed"
    yield "bound to more than a request", good(req=request(scheme="https")), "TokenMalformed"


def _changed(usual: Json, changes: Json) -> Json:
    return {name: value for name, value in (usual | changes).items() if value is not None}


def _signed(header: Json | bytes, payload: Json | bytes) -> str:
    parts = (part if isinstance(part, bytes) else compact_json(part) for part in (header, payload))
    return ".".join(base64url(part) for part in parts)


def _hmac(algorithm: str, secret: bytes) -> str:
    signed = _signed(header(alg=algorithm), payload())
    return f"{signed}.{base64url(hmac.digest(secret, signed.encode(), 'sha256'))}"


def document() -> Json:
    """All vectors, with what they are to be checked against."""
    return {
        "now": NOW,
        "issuer": ISSUER,
        "audience": str(TICKETS),
        "request": {"method": "POST", "authority": "tickets.demo.svc:8080", "path": "/mcp?session=1", "body": '{"method":"tools/call"}'},
        "jwks": {"keys": [key.jwk() for key in KEYS.values()]},
        "accepted": [{"name": name, "token": token} for name, token in accepted()],
        "refused": [{"name": name, "token": token, "code": code} for name, token, code in refused()],
    }


if __name__ == "__main__":
    VECTORS.write_text(json.dumps(document(), indent=1) + "\n", encoding="utf-8")
