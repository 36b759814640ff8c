"""The settings: defaults, then the configuration file, then the environment, then the command line.

    parley.toml:  [model]                environment:  PARLEY_MODEL__NAME=llama3.2
                  name = "llama3.2"

A key or a variable that is not known is an error, so that no misspelled setting is silently ignored.
"""

import difflib
import os
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import platformdirs
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from parley_server.auth.factory import AuthSettings
from parley_server.domain.errors import StartError
from parley_server.llm.model_settings import ModelSettings
from parley_server.rpc.listener import ServerSettings

FILE_NAME = "parley.toml"
PREFIX = "PARLEY_"
DELIMITER = "__"
DATA_DIR_VARIABLE = "PARLEY_HOME"
# Read by clients, and so none of the server's.
_OTHERS_VARIABLES = frozenset({DATA_DIR_VARIABLE, "PARLEY_TARGET", "PARLEY_API_KEY"})
_FALL_BACKS = {"base_url": "OPENAI_BASE_URL", "api_key": "OPENAI_API_KEY"}
# What a key without a base URL asks; any other server has models of its own names.
_OFFICIAL_MODEL = "gpt-5-mini"


SettingsT = TypeVar("SettingsT", bound=BaseModel)


class ConfigError(StartError):
    """A setting is wrong; the text names where it stands, the setting, and the remedy."""


class StorageSettings(BaseModel):
    """`[storage]`. `url` is `sqlite:///PATH`, relative to the data directory; empty: `parley.db` in it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str = ""

    @field_validator("url")
    @classmethod
    def _is_sqlite(cls, url: str) -> str:
        if url and not (url.startswith("sqlite:///") and len(url) > len("sqlite:///")):
            raise ValueError("write sqlite:///PATH; other databases are not available yet")
        return url

    def sqlite_path(self, data_dir: Path) -> Path:
        """Return the database's file."""
        return data_dir / (self.url.removeprefix("sqlite:///") or "parley.db")


class LogSettings(BaseModel):
    """`[log]`. `auto` writes for people on a terminal and JSON lines elsewhere."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["auto", "json", "console"] = "auto"
    level: Literal["debug", "info", "warning", "error"] = "info"


_SECTIONS: Mapping[str, type[BaseModel]] = {
    "server": ServerSettings,
    "model": ModelSettings,
    "storage": StorageSettings,
    "auth": AuthSettings,
    "log": LogSettings,
}


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings, checked. `config_file` is the file that was read, None where there is none."""

    data_dir: Path
    config_file: Path | None
    server: ServerSettings
    storage: StorageSettings
    auth: AuthSettings
    log: LogSettings
    model: ModelSettings
    has_model: bool

    def model_settings(self) -> ModelSettings | None:
        """Return where the model is; None where neither a key nor a base URL is set, and the offline model serves."""
        return self.model if self.has_model else None


@dataclass(frozen=True, slots=True)
class _Value:
    """A setting as it was given, and the place that gave it, for what is said of it."""

    value: object
    origin: str


_Given = dict[tuple[str, str], _Value]


def load_settings(
    *,
    config: Path | None = None,
    data_dir: Path | None = None,
    flags: Mapping[tuple[str, str], str] | None = None,
    environment: Mapping[str, str] = os.environ,
) -> Settings:
    """Read all settings. `flags` are those of the command line, by section and key.

    Raises:
        ConfigError: a file, a variable or a value is wrong.
    """
    data_dir = data_dir or default_data_dir(environment)
    file = _find_file(config, data_dir)
    given = {} if file is None else _from_file(file)
    given |= _from_environment(environment)
    given |= {place: _Value(value, f"--{place[1].replace('_', '-')}") for place, value in (flags or {}).items()}
    _fall_back(given, environment)
    has_model = bool(_text(given, "api_key") or _text(given, "base_url"))
    if not _text(given, "base_url"):
        given.setdefault(("model", "name"), _Value(_OFFICIAL_MODEL, "default"))
    return Settings(
        data_dir=data_dir,
        config_file=file,
        server=_section(given, "server", ServerSettings),
        storage=_section(given, "storage", StorageSettings),
        auth=_section(given, "auth", AuthSettings),
        log=_section(given, "log", LogSettings),
        model=_section(given, "model", ModelSettings),
        has_model=has_model,
    )


def default_data_dir(environment: Mapping[str, str] = os.environ) -> Path:
    """Return the data directory where no flag names one: PARLEY_HOME, else the platform's."""
    named = environment.get(DATA_DIR_VARIABLE)
    return Path(named).expanduser().absolute() if named else platformdirs.user_data_path("parley", appauthor=False)


def _find_file(config: Path | None, data_dir: Path) -> Path | None:
    if config is not None:
        if not config.is_file():
            raise ConfigError(f"{config}: there is no such file; correct --config")
        return config
    return next((file for file in (Path(FILE_NAME), data_dir / FILE_NAME) if file.is_file()), None)


def _from_file(file: Path) -> _Given:
    try:
        tables = tomllib.loads(file.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{file}: {error}; correct the line") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: cannot be read as UTF-8 text; check the file and its rights") from error
    given: _Given = {}
    for section, table in tables.items():
        _check_section(section, str(file))
        if not isinstance(table, dict):
            raise ConfigError(f"{file}: {section} is a table; write [{section}] and its keys below")
        given |= {(section, key): _Value(value, str(file)) for key, value in table.items()}
    return given


def _from_environment(environment: Mapping[str, str]) -> _Given:
    given: _Given = {}
    for name in sorted(environment.keys() - _OTHERS_VARIABLES):
        if not name.startswith(PREFIX):
            continue
        section, delimiter, key = name.removeprefix(PREFIX).lower().partition(DELIMITER)
        if delimiter:
            _check_section(section, f"environment variable {name}")
            given[section, key] = _Value(environment[name], f"environment variable {name}")
        else:
            _refuse_single_underscore(name, section)
    return given


def _refuse_single_underscore(name: str, rest: str) -> None:
    section, _, key = rest.partition("_")
    if section in _SECTIONS:
        meant = f"{PREFIX}{section.upper()}{DELIMITER}{key.upper() or 'KEY'}"
        raise ConfigError(f"environment variable {name} is not read; write {meant}, with two underscores")


def _check_section(section: str, origin: str) -> None:
    if section not in _SECTIONS:
        raise ConfigError(f"{origin}: there is no section [{section}]; {_suggestion(section, _SECTIONS)}")


def _fall_back(given: _Given, environment: Mapping[str, str]) -> None:
    for key, variable in _FALL_BACKS.items():
        if environment.get(variable):
            given.setdefault(("model", key), _Value(environment[variable], f"environment variable {variable}"))


def _text(given: _Given, key: str) -> str:
    found = given.get(("model", key))
    return "" if found is None else str(found.value).strip()


def _section(given: _Given, section: str, settings_type: type[SettingsT]) -> SettingsT:
    try:
        return settings_type.model_validate({key: each.value for (name, key), each in given.items() if name == section})
    except ValidationError as error:
        # A sentence of ours about one fault, because the error's own text repeats what was given: keys, too. A
        # misspelled key first, since it explains the one that is missing.
        faults = error.errors(include_url=False, include_context=False, include_input=False)
        fault = min(faults, key=lambda each: each["type"] != "extra_forbidden")
        key = str(fault["loc"][0])
        place = given.get((section, key))
        origin = f"{place.origin}: " if place else ""
        problem = _problem(fault["type"], fault["msg"], section, key)
        raise ConfigError(f"{origin}[{section}] {key}: {problem}") from None


def _problem(kind: str, message: str, section: str, key: str) -> str:
    match kind:
        case "missing":
            return f"is missing; set it, for example by {PREFIX}{section.upper()}{DELIMITER}{key.upper()}"
        case "extra_forbidden":
            return f"there is no such key; {_suggestion(key, _SECTIONS[section].model_fields)}"
        case _:
            return message.removeprefix("Value error, ")


def _suggestion(name: str, known: Iterable[str]) -> str:
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}"
