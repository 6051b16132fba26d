"""The credential broker: a Secret becomes one header of one allowed request.

The secret is never shown: not in an error, not by `repr`. What could split a header or reach the upstream changed
(control characters, bytes beyond ASCII, space at an end) is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from hopgate.resources.kinds import Credential, SecretKey, SecretValue
from tokenmint.errors import CredentialMissingError, CredentialUnusableError
from tokenmint.redacted import Redacted

# Headers that carry a caller's own credentials. They are removed from every request on its way out: what the agent holds
# (or believes it holds) is for nobody beyond the gate, and the upstream gets the credential of its own record, if any.
CALLER_CREDENTIAL_HEADERS: Final = (
    "authorization",  # RFC 9110 section 11.6.2: the agent's placeholder, or a user's token
    "proxy-authorization",  # RFC 9110 section 11.7.2: meant for a proxy, and the gate is one
    "cookie",  # RFC 6265: a session
    "dpop",  # RFC 9449: the proof that goes with a bound access token
    "x-api-key",  # Anthropic, AWS API Gateway, and the most common name for an API key
    "api-key",  # Azure OpenAI
    "apikey",  # Kong, Supabase
    "x-goog-api-key",  # Google APIs, Gemini
    "x-goog-iam-authorization-token",  # Google IAM
    "x-amz-security-token",  # AWS: the session token of temporary credentials (the signature is in authorization)
    "ocp-apim-subscription-key",  # Azure API Management, Azure AI services
    "x-functions-key",  # Azure Functions
    "x-auth-token",  # OpenStack, and many in-house APIs
    "x-access-token",  # many in-house APIs
    "x-auth-key",  # Cloudflare's global key
    "x-vault-token",  # HashiCorp Vault
    "x-consul-token",  # HashiCorp Consul
    "x-aws-ec2-metadata-token",  # the instance metadata service's session
    "private-token",  # GitLab
    "job-token",  # GitLab CI
    "x-github-token",  # GitHub's helpers
    "xi-api-key",  # ElevenLabs
    "x-subscription-token",  # Brave Search
    "x-rapidapi-key",  # RapidAPI
    "dd-api-key",  # Datadog
    "dd-application-key",  # Datadog
    "x-forwarded-access-token",  # oauth2-proxy: the user's access token
    "x-forwarded-authorization",  # proxies that move authorization aside
    "x-ms-token-aad-access-token",  # Azure App Service: the user's access token
    "x-ms-token-aad-id-token",  # Azure App Service: the user's ID token
)

# Visible ASCII and inner spaces: RFC 9110 section 5.5 without obs-text, which parsers disagree about.
_VALUE: Final = re.compile(r"[!-~](?:[ -~]*[!-~])?")
# Far above any API key and any JWT in use; with the rest of the request it stays under Envoy's 60 KiB of headers.
MAX_VALUE_LENGTH: Final = 16_384


class SecretHeader(Redacted):
    """A header whose value is a credential. `reveal()` is for the one allowed request that it was asked for."""

    __slots__ = ("_value", "name")

    def __init__(self, name: str, value: str) -> None:
        self.name = name
        self._value = value

    def reveal(self) -> str:
        """The header's value. Whoever calls this is responsible for where it goes."""
        return self._value

    def _shown(self) -> str:
        return f"name={self.name}, redacted"


def header_value(credential: Credential, secrets: Mapping[SecretKey, SecretValue]) -> SecretHeader:
    """The header that carries `credential`: its prefix and the secret, without the line end that files have.

    Raises CredentialMissingError and CredentialUnusableError; neither says more than which Secret it is about.
    """
    where = f"the Secret `{credential.secret.secret}`"
    secret = secrets.get(credential.secret)
    if secret is None:
        raise CredentialMissingError(f"expected {where} with the key that the credential refers to, found none: add it")
    stripped = secret.reveal().rstrip(b"\r\n")
    if not stripped:
        raise CredentialUnusableError(f"expected {where} to hold a value, got an empty one")
    try:
        text = stripped.decode("ascii")
    except UnicodeDecodeError:
        text = ""  # the error of the codec holds the secret, so it is not chained
    if _VALUE.fullmatch(text) is None:
        raise CredentialUnusableError(f"expected {where} to hold visible ASCII in one line, without space at its ends; it does not")
    value = credential.prefix + text
    if len(value) > MAX_VALUE_LENGTH:
        raise CredentialUnusableError(f"expected {where} to hold at most {MAX_VALUE_LENGTH} characters with the prefix, got {len(value)}")
    return SecretHeader(credential.header, value)
