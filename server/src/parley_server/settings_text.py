"""The settings in force as text that is a configuration file."""

import json
from collections.abc import Iterator, Mapping

from pydantic import BaseModel, SecretStr

from parley_server.settings import Settings
from parley_server.settings_tables import Place, header, sub_tables


def settings_text(settings: Settings, *, with_secrets: bool) -> str:
    """Return the settings as TOML. Without `with_secrets` no password and no key is in it."""
    head = (f"# data directory: {settings.data_dir}", f"# read from: {settings.config_file or 'no configuration file'}")
    tables = (line for place, table in settings.tables().items() for line in _lines(place, table, with_secrets))
    return "\n".join([*head, *tables])


def _lines(place: Place, table: BaseModel, with_secrets: bool) -> Iterator[str]:
    yield ""
    yield header(place)
    redacted = table.model_dump(mode="json")
    inner = sub_tables(type(table))
    for key in (key for key in type(table).model_fields if key not in inner):
        value = _plain(getattr(table, key)) if with_secrets else redacted[key]
        yield f"# {key} is not set" if value is None else f"{key} = {_toml(value)}"


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    return value.get_secret_value() if isinstance(value, SecretStr) else value


def _toml(value: object) -> str:
    """Write a value; JSON's numbers, booleans, lists and escaped strings are TOML's, too."""
    if isinstance(value, Mapping):
        pairs = ", ".join(f"{_toml(key)} = {_toml(inner)}" for key, inner in value.items())
        return f"{{ {pairs} }}" if pairs else "{}"
    return json.dumps(value, ensure_ascii=False, default=str)
