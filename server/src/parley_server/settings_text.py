"""The settings in force as text that is a configuration file."""

import json
from collections.abc import Iterator

from pydantic import BaseModel, SecretStr

from parley_server.settings import Settings


def settings_text(settings: Settings, *, with_secrets: bool) -> str:
    """Return the settings as TOML. Without `with_secrets` no password and no key is in it."""
    head = (f"# data directory: {settings.data_dir}", f"# read from: {settings.config_file or 'no configuration file'}")
    sections = (line for name, section in settings.sections().items() for line in _lines(name, section, with_secrets))
    return "\n".join([*head, *sections])


def _lines(name: str, section: BaseModel, with_secrets: bool) -> Iterator[str]:
    yield ""
    yield f"[{name}]"
    redacted = section.model_dump(mode="json")
    for key in type(section).model_fields:
        value = _plain(getattr(section, key)) if with_secrets else redacted[key]
        yield f"# {key} is not set" if value is None else f"{key} = {_toml(value)}"


def _plain(value: object) -> object:
    return value.get_secret_value() if isinstance(value, SecretStr) else value


def _toml(value: object) -> str:
    """Write a value; JSON's numbers, booleans, lists and escaped strings are TOML's, too."""
    return json.dumps(value, ensure_ascii=False, default=str)
