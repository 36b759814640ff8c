"""What model servers take that call themselves OpenAI-compatible: one profile for each kind of server and model.

A profile is what is known of a server before anything was asked of it. `parley-server models check` asks a server
itself and says where the two differ; the settings then correct single fields.
"""

import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from urllib.parse import urlsplit

from pydantic import TypeAdapter

from parley_server.llm.profile_settings import (
    MaxTokensField,
    ProfileSettings,
    ReasoningField,
    ReasoningReplay,
    ResponseFormat,
    SeedField,
    ServerKind,
    SystemRole,
)


@dataclass(frozen=True, slots=True)
class ProviderProfile:
    """How one model of one server is asked; the fields mean what ProfileSettings says of them.

    The defaults are for a server that nothing is known of: what nearly all take, and nothing that one in earnest
    refuses. None is not known; such a thing is sent, and the server says whether it takes it.
    """

    kind: ServerKind = "unknown"
    stream_options: bool = True
    max_tokens_field: MaxTokensField = "max_tokens"
    system_role: SystemRole = "system"
    sampling: bool | None = None
    stop: bool | None = None
    seed_field: SeedField = "seed"
    tools: bool | None = None
    parallel_tool_calls: bool = True
    images: bool | None = None
    response_format: ResponseFormat = "none"
    format_beside_tools: bool = False
    strict_schemas: bool = False
    reasoning_field: ReasoningField = "reasoning_content"
    replay_reasoning: ReasoningReplay = "never"
    context_window: int | None = None


_OPENAI = ProviderProfile(
    "openai",
    max_tokens_field="max_completion_tokens",
    tools=True,
    response_format="json_schema",
    format_beside_tools=True,
    strict_schemas=True,
)
_BY_KIND: dict[ServerKind, ProviderProfile] = {
    profile.kind: profile
    for profile in (
        _OPENAI,
        replace(_OPENAI, kind="azure"),
        # Takes any option and drops what the model does not have.
        ProviderProfile("ollama", response_format="json_schema", reasoning_field="reasoning"),
        ProviderProfile("vllm", response_format="json_schema", reasoning_field="reasoning"),
        ProviderProfile("llama_cpp", response_format="json_schema"),
        ProviderProfile("lm_studio", response_format="json_schema"),
        # What stands behind these two differs from model to model.
        ProviderProfile("litellm", response_format="json_object"),
        ProviderProfile("openrouter", response_format="json_schema", reasoning_field="reasoning"),
        ProviderProfile(
            "deepseek", tools=True, seed_field="none", response_format="json_object", replay_reasoning="tool_calls"
        ),
        # Sends the usage unasked.
        ProviderProfile(
            "mistral", stream_options=False, seed_field="random_seed", tools=True, response_format="json_schema"
        ),
        # Refuses every field it does not know.
        ProviderProfile("gemini", seed_field="none", tools=True, response_format="json_schema"),
        ProviderProfile(
            "groq", max_tokens_field="max_completion_tokens", response_format="json_object", reasoning_field="reasoning"
        ),
        ProviderProfile(),
    )
}
_HOSTS: tuple[tuple[str, ServerKind], ...] = (
    ("api.openai.com", "openai"),
    (".api.openai.com", "openai"),
    (".openai.azure.com", "azure"),
    (".services.ai.azure.com", "azure"),
    ("openrouter.ai", "openrouter"),
    ("api.deepseek.com", "deepseek"),
    ("api.mistral.ai", "mistral"),
    ("generativelanguage.googleapis.com", "gemini"),
    ("api.groq.com", "groq"),
)
# Of the servers that listen on one that is nobody else's.
_PORTS: dict[int | None, ServerKind] = {11434: "ollama", 1234: "lm_studio"}

_Change = Callable[[ProviderProfile], ProviderProfile]
_Rule = tuple[str, _Change]
_OF_OPENAI: tuple[_Rule, ...] = (
    (r"gpt-(3\.5|4$|4-).*", lambda p: replace(p, strict_schemas=False, response_format="none")),
    (r"gpt-(3\.5-.*|4|4-32k.*|4-0\d.*)", lambda p: replace(p, images=False)),
    (r"gpt-4(o|\.1).*", lambda p: replace(p, images=True)),
    (r"gpt-4o.*", lambda p: replace(p, context_window=128_000)),
    (r"gpt-4\.1.*", lambda p: replace(p, context_window=1_047_576)),
    (r"(gpt-5|o[134]).*", lambda p: replace(p, images=True, system_role="developer")),
    # These always reason; later ones of the line take the options while they do not.
    (r"(gpt-5(-mini|-nano)?(-\d.*)?|o[134](-.*)?)", lambda p: replace(p, sampling=False, stop=False)),
    (r"gpt-5(-mini|-nano)?(-\d.*)?", lambda p: replace(p, context_window=400_000)),
    (r"o[134].*", lambda p: replace(p, context_window=200_000)),
    (r"o[13]-mini.*", lambda p: replace(p, images=False)),
)
# What the models of a server differ in, by the whole of their names; the later over the earlier.
_MODELS: dict[ServerKind, tuple[_Rule, ...]] = {
    "openai": _OF_OPENAI,
    # A deployment may have any name; most have the model's.
    "azure": _OF_OPENAI,
    "deepseek": (
        (r"deepseek-(chat|reasoner)", lambda p: replace(p, images=False)),
        (r"deepseek-v4.*", lambda p: replace(p, context_window=1_048_576)),
    ),
    "mistral": (
        (r"(codestral|open-mistral).*", lambda p: replace(p, images=False)),
        (r"(pixtral|mistral-medium|mistral-small).*", lambda p: replace(p, images=True)),
    ),
    "gemini": ((r"(models/)?gemini-.*", lambda p: replace(p, images=True, context_window=1_048_576)),),
    "groq": (
        (r"(llama-3\.[13]|meta-llama/llama-4|openai/gpt-oss|qwen/qwen3)-.*", lambda p: replace(p, tools=True)),
        (r"(llama-3\.[13]|openai/gpt-oss|qwen/qwen3)-.*", lambda p: replace(p, images=False, context_window=131_072)),
        (r"meta-llama/llama-4-.*", lambda p: replace(p, images=True, context_window=131_072)),
        (r"(meta-llama/llama-4|openai/gpt-oss)-.*", lambda p: replace(p, response_format="json_schema")),
        (r"openai/gpt-oss-.*", lambda p: replace(p, strict_schemas=True)),
    ),
}
_checked = TypeAdapter(ProviderProfile).validate_python


def kind_of(base_url: str) -> ServerKind:
    """Tell the kind of server by its address; `unknown` where that does not tell."""
    address = urlsplit(base_url)
    host = (address.hostname or "").removesuffix(".")
    by_host = (kind for name, kind in _HOSTS if host == name or (name.startswith(".") and host.endswith(name)))
    return next(by_host, _PORTS.get(address.port, "unknown"))


@lru_cache(maxsize=1024)
def profile_of(base_url: str, model: str, settings: ProfileSettings) -> ProviderProfile:
    """Return how a server is asked for a model: what is known of both, with what the settings correct."""
    profile = _BY_KIND[settings.kind or kind_of(base_url)]
    for pattern, change in _MODELS.get(profile.kind, ()):
        if re.fullmatch(pattern, model):
            profile = change(profile)
    return _checked({**asdict(profile), **settings.model_dump(exclude_none=True)})
