"""Errors of the mint. `code` is stable: a record's detail and a metric's label. No message ever holds a secret or a token.

TokenmintError
├── TokenError                   a token that is not accepted, or claims that are not minted
│   ├── TokenMalformedError      not one compact JWS in its one spelling, or claims that are not the expected ones
│   ├── TokenTypeError           a JWT of another kind (`typ`)
│   ├── TokenAlgorithmError      an algorithm outside the fixed list
│   ├── TokenKeyUnknownError     no key of that id, or the token brings a key of its own
│   ├── TokenKeyRetiredError     a key whose time is over
│   ├── TokenSignatureError      the signature is not the key's
│   ├── TokenIssuerError         an issuer that is not asked for
│   ├── TokenAudienceError       made for another receiver, or for several
│   ├── TokenNotYetValidError    issued in the future
│   ├── TokenExpiredError        its time is over
│   ├── TokenLifeError           a longer life than any hop token has
│   ├── TokenChainError          a chain of agents that is empty, too deep, or comes back to itself
│   ├── TokenUserError           no usable user in the claims
│   ├── TokenWorkloadError       no usable service account in the claims
│   ├── TokenUnboundError        a service account's token that is not bound to a pod
│   └── TokenBindingError        made for another request
├── CredentialError              an upstream credential that can't be sent
│   ├── CredentialMissingError   the Secret or its key is not there
│   └── CredentialUnusableError  the secret can't be a header's value
└── AuthorityError               a certificate that is not issued
    ├── HostRefusedError         not a DNS host name in lower case
    ├── AuthorityUnusableError   not a certificate authority that can sign
    └── AuthorityExpiredError    the authority's own time is over
"""

from __future__ import annotations

from typing import ClassVar


class TokenmintError(ValueError):
    """Root of what the mint raises for hostile or unusable input. A caller's own mistake is a plain ValueError."""

    code: ClassVar[str] = "TokenmintError"


class TokenError(TokenmintError):
    """Root of the reasons why a token is not accepted or not made."""

    code: ClassVar[str] = "TokenRefused"


class TokenMalformedError(TokenError):
    """Not one compact JWS in its one spelling, or claims that are missing, repeated, unknown or of another type."""

    code: ClassVar[str] = "TokenMalformed"


class TokenTypeError(TokenError):
    """A JWT of another kind: its `typ` is not the expected one (RFC 8725 section 3.11)."""

    code: ClassVar[str] = "TokenType"


class TokenAlgorithmError(TokenError):
    """An algorithm outside the fixed list, or one that its key is not for (RFC 8725 section 3.1)."""

    code: ClassVar[str] = "TokenAlgorithm"


class TokenKeyUnknownError(TokenError):
    """No key of that id is published, or the token brings a key of its own. Nothing is ever fetched for it."""

    code: ClassVar[str] = "TokenKeyUnknown"


class TokenKeyRetiredError(TokenError):
    """The key that signed is known, and its time is over."""

    code: ClassVar[str] = "TokenKeyRetired"


class TokenSignatureError(TokenError):
    """The signature is not the key's over these bytes."""

    code: ClassVar[str] = "TokenSignature"


class TokenIssuerError(TokenError):
    """Issued by somebody who is not asked for."""

    code: ClassVar[str] = "TokenIssuer"


class TokenAudienceError(TokenError):
    """Made for another receiver, or for several."""

    code: ClassVar[str] = "TokenAudience"


class TokenNotYetValidError(TokenError):
    """Issued in the future, or not valid before it."""

    code: ClassVar[str] = "TokenNotYetValid"


class TokenExpiredError(TokenError):
    """Its time is over."""

    code: ClassVar[str] = "TokenExpired"


class TokenLifeError(TokenError):
    """A life that is empty or longer than any hop token has."""

    code: ClassVar[str] = "TokenLife"


class TokenChainError(TokenError):
    """A chain of agents that is empty, too deep, comes back to itself, or names its subject as an actor (RFC 8693 section 4.1)."""

    code: ClassVar[str] = "TokenChain"


class TokenUserError(TokenError):
    """The claims name no user in the expected form."""

    code: ClassVar[str] = "TokenUser"


class TokenWorkloadError(TokenError):
    """The claims name no service account, or its pod, in the form that Kubernetes gives them."""

    code: ClassVar[str] = "TokenWorkload"


class TokenUnboundError(TokenError):
    """A service account's token that is not bound to a pod: it would outlive whoever it was made for."""

    code: ClassVar[str] = "TokenUnbound"


class TokenBindingError(TokenError):
    """Made for another request."""

    code: ClassVar[str] = "TokenBinding"


class CredentialError(TokenmintError):
    """Root of the reasons why an upstream credential can't be sent. The secret is never in the message."""

    code: ClassVar[str] = "CredentialError"


class CredentialMissingError(CredentialError):
    """The Secret, or the key of it that is referred to, is not there."""

    code: ClassVar[str] = "CredentialMissing"


class CredentialUnusableError(CredentialError):
    """The secret can't be a header's value (RFC 9110 section 5.5)."""

    code: ClassVar[str] = "CredentialUnusable"


class AuthorityError(TokenmintError):
    """Root of the reasons why a certificate is not issued."""

    code: ClassVar[str] = "AuthorityError"


class HostRefusedError(AuthorityError):
    """Not a DNS host name in lower case: an address, a pattern, or worse."""

    code: ClassVar[str] = "HostRefused"


class AuthorityUnusableError(AuthorityError):
    """Not a certificate authority with its key, or of a kind that is not signed with here."""

    code: ClassVar[str] = "AuthorityUnusable"


class AuthorityExpiredError(AuthorityError):
    """The authority's own certificate ends before the leaf would be of use."""

    code: ClassVar[str] = "AuthorityExpired"
