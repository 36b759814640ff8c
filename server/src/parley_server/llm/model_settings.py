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
    """Where the model is and how long to wait for it.

    `base_url` is what comes before `/chat/completions`. An empty `api_key` sends none, for servers that want none.
    `name` is the model that is asked when nobody names another.

    The time-outs are seconds: to connect, from asking to the first event, and between two events after that.
    """

    # A rejected key must not be shown by the error that rejects it.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    base_url: Annotated[str, AfterValidator(_web_address)] = OFFICIAL_BASE_URL
    api_key: Annotated[SecretStr, AfterValidator(_sendable)] = SecretStr("")
    name: Annotated[str, Field(min_length=1, max_length=256)]
    connect_timeout_s: _Seconds = 5.0
    first_event_timeout_s: _Seconds = 60.0
    gap_timeout_s: _Seconds = 60.0
