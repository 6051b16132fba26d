"""Environment variables that matter to a governed program, by name: the same wherever it runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from hopgate.resources.kinds import Provider

# SDKs refuse to start without a key and some look at its first letters; none is known to refuse this.
PLACEHOLDER: Final = "hopgate-placeholder"

# Keys and tokens of model providers, as their SDKs and common agent frameworks name them.
PROVIDER_KEYS: Final = frozenset(
    {
        "AI21_API_KEY",
        "ANTHROPIC_API_KEY",
        "ANTHROPIC_AUTH_TOKEN",
        "ANTHROPIC_FOUNDRY_API_KEY",
        "AWS_BEARER_TOKEN_BEDROCK",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AZURE_API_KEY",
        "AZURE_OPENAI_AD_TOKEN",
        "AZURE_OPENAI_API_KEY",
        "CEREBRAS_API_KEY",
        "CLAUDE_CODE_OAUTH_TOKEN",
        "CODEX_API_KEY",
        "COHERE_API_KEY",
        "CO_API_KEY",
        "DASHSCOPE_API_KEY",
        "DEEPSEEK_API_KEY",
        "FIREWORKS_API_KEY",
        "GEMINI_API_KEY",
        "GOOGLE_API_KEY",
        "GROQ_API_KEY",
        "HF_TOKEN",
        "HUGGINGFACEHUB_API_TOKEN",
        "HUGGINGFACE_API_KEY",
        "HUGGING_FACE_HUB_TOKEN",
        "JINA_API_KEY",
        "LITELLM_API_KEY",
        "MISTRAL_API_KEY",
        "MOONSHOT_API_KEY",
        "NVIDIA_API_KEY",
        "OPENAI_ADMIN_KEY",
        "OPENAI_API_KEY",
        "OPENROUTER_API_KEY",
        "PERPLEXITY_API_KEY",
        "REPLICATE_API_TOKEN",
        "TOGETHERAI_API_KEY",
        "TOGETHER_API_KEY",
        "VOYAGE_API_KEY",
        "WATSONX_APIKEY",
        "XAI_API_KEY",
        "ZAI_API_KEY",
    }
)

# The variable that a provider's SDK will not start without, and those that serve instead of it.
NEEDED_KEYS: Final[Mapping[Provider, tuple[str, ...]]] = {
    Provider.OPENAI: ("OPENAI_API_KEY",),
    Provider.ANTHROPIC: ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"),
}

# One variable for each TLS stack that does not read OpenSSL's. SSL_CERT_DIR stays as it is: it can only add roots, never
# replace the file's. NODE_EXTRA_CA_CERTS adds to Node's own list.
TRUST_VARIABLES: Final = (
    "AWS_CA_BUNDLE",
    "CARGO_HTTP_CAINFO",
    "CURL_CA_BUNDLE",
    "DENO_CERT",
    "GIT_SSL_CAINFO",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
    "NODE_EXTRA_CA_CERTS",
    "PIP_CERT",
    "REQUESTS_CA_BUNDLE",
    "SSL_CERT_FILE",
)

# Proxies are out of reach, and the gate captures without them.
PROXY_VARIABLES: Final = frozenset(
    name
    for stem in ("http_proxy", "https_proxy", "all_proxy", "ftp_proxy", "ws_proxy", "wss_proxy", "no_proxy")
    for name in (stem, stem.upper())
)
