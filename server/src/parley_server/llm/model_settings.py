"""The settings of the model's server: the `[model]` table of the configuration."""

import re
from typing import Annotated
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, field_serializer

from parley_server.llm.profile_settings import ProfileSettings

OFFICIAL_BASE_URL = "https://api.openai.com/v1"
MAX_MODEL_NAME_CHARS = 128

_CREDENTIALS = re.compile(r"//[^/]*@")


def _web_address(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("must be http://HOST... or https://HOST...")
    if not _has_usable_name(parts):
        raise ValueError("must have a host's name of labels of 1 to 63 characters, with dots between them")
    if not _has_usable_port(parts):
        raise ValueError("must have a port of 1 to 65535, or none")
    if parts.query or parts.fragment:
        raise ValueError("must end with the path, without ? or #")
    return url.rstrip("/")


def _has_usable_port(parts: SplitResult) -> bool:
    try:
        return parts.port != 0
    except ValueError:
        # Its words would repeat what stands there, which may be a password.
        return False


def _has_usable_name(parts: SplitResult) -> bool:
    try:
        return bool((parts.hostname or "").encode("idna"))
    except UnicodeError:
        return False


def without_credentials(url: str) -> str:
    """Return an address as it may be shown: what stands before an @ in it may be a password."""
    return _CREDENTIALS.sub("//***@", url)


def _sendable(key: SecretStr) -> SecretStr:
    value = key.get_secret_value().strip()
    if not all("!" <= character <= "~" for character in value):
        raise ValueError("must be printable ASCII without blanks")
    return SecretStr(value)


def _listed(value: object) -> object:
    """Read what the environment writes with commas."""
    return [word.strip() for word in value.split(",")] if isinstance(value, str) else value


def _nameable(model: str) -> str:
    if not 0 < len(model) <= MAX_MODEL_NAME_CHARS or not all("!" <= character <= "~" for character in model):
        raise ValueError(f"must be 1 to {MAX_MODEL_NAME_CHARS} characters of printable ASCII without blanks")
    return model


def _matchable(pattern: str) -> str:
    if "*" in _nameable(pattern)[:-1]:
        raise ValueError("may hold * at its end alone")
    return pattern


_Seconds = Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)]
_Key = Annotated[SecretStr, AfterValidator(_sendable)]
ModelName = Annotated[str, AfterValidator(_nameable)]
ModelPattern = Annotated[str, AfterValidator(_matchable)]


class ModelServerSettings(BaseModel):
    """A model server: where it is, and how long to wait for it."""

    # A rejected key must not be shown by the error that rejects it.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    base_url: Annotated[str, AfterValidator(_web_address)]
    """What comes before `/chat/completions` on any OpenAI-compatible server."""

    api_key: _Key = SecretStr("")
    """The key that is sent; empty sends none, for servers that want none."""

    connect_timeout_s: _Seconds = 5.0
    """How long to wait for a connection, in seconds."""

    first_event_timeout_s: _Seconds = 60.0
    """How long to wait from asking to the first event, in seconds."""

    gap_timeout_s: _Seconds = 60.0
    """How long to wait between two events after that, in seconds; comments that keep the connection alive are none."""

    total_timeout_s: _Seconds = 600.0
    """How long to wait for one answer in all, in seconds."""

    retries: Annotated[int, Field(ge=0, le=5)] = 2
    """How often one call is repeated at most, when the server fails before the first event in a way that may pass."""

    profile: ProfileSettings = ProfileSettings()

    @field_serializer("base_url")
    def _without_credentials(self, url: str) -> str:
        return without_credentials(url)


class ModelSettings(ModelServerSettings):
    """`[model]`: where the model is, and how long to wait for it.

    Without a key and without a base URL the offline model answers.
    """

    base_url: Annotated[str, AfterValidator(_web_address)] = OFFICIAL_BASE_URL
    """What comes before `/chat/completions` on any OpenAI-compatible server."""

    name: ModelName
    """The model that is asked when nobody names another. `gpt-5-mini` where there is no base URL."""

    fallbacks: Annotated[tuple[ModelName, ...], BeforeValidator(_listed), Field(max_length=8)] = ()
    """The models that are asked in turn when the one that was chosen is not available; the user is told."""

    allowed: Annotated[tuple[ModelPattern, ...], BeforeValidator(_listed), Field(max_length=256)] = ()
    """What a caller may name besides `name`, the `fallbacks` and the models of `[providers]`: names, or the beginnings
    of names and `*`; `*` alone is any. Whoever may use the server may spend its key's money on all of them."""

    compact: bool = True
    """Whether a summary takes the place of a conversation's oldest turns once it outgrows the model's window. False
    lets such a run fail with MODEL_CONTEXT_TOO_LONG."""


class ProviderSettings(ModelServerSettings):
    """`[providers.NAME]`: a further model server. What its `models` name is asked there, all else at `[model]`'s."""

    models: Annotated[tuple[ModelName, ...], BeforeValidator(_listed), Field(min_length=1, max_length=256)]
    """The models that are asked there; in the environment with commas between them."""
