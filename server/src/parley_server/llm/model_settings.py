"""The settings of the model's server: the `[model]` table of the configuration."""

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr

OFFICIAL_BASE_URL = "https://api.openai.com/v1"


def _web_address(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("must be http://HOST... or https://HOST...")
    if parts.query or parts.fragment:
        raise ValueError("must end with the path, without ? or #")
    return url.rstrip("/")


def _sendable(key: SecretStr) -> SecretStr:
    value = key.get_secret_value().strip()
    if not all("!" <= character <= "~" for character in value):
        raise ValueError("must be printable ASCII without blanks")
    return SecretStr(value)


_Seconds = Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)]


class ModelSettings(BaseModel):
    """`[model]`: where the model is, and how long to wait for it.

    Without a key and without a base URL the offline model answers.
    """

    # A rejected key must not be shown by the error that rejects it.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    base_url: Annotated[str, AfterValidator(_web_address)] = OFFICIAL_BASE_URL
    """What comes before `/chat/completions` on any OpenAI-compatible server."""

    api_key: Annotated[SecretStr, AfterValidator(_sendable)] = SecretStr("")
    """The key that is sent; empty sends none, for servers that want none."""

    name: Annotated[str, Field(min_length=1, max_length=256)]
    """The model that is asked when nobody names another. `gpt-5-mini` where there is no base URL."""

    connect_timeout_s: _Seconds = 5.0
    """How long to wait for a connection, in seconds."""

    first_event_timeout_s: _Seconds = 60.0
    """How long to wait from asking to the first event, in seconds."""

    gap_timeout_s: _Seconds = 60.0
    """How long to wait between two events after that, in seconds."""
