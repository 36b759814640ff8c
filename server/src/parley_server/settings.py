"""The settings: defaults, then the configuration file, then the environment, then the command line.

    parley.toml:  [model]                environment:  PARLEY_MODEL__NAME=llama3.2
                  name = "llama3.2"

A secret may stand in a file of its own, which `api_key_file` or PARLEY_MODEL__API_KEY_FILE names, and so on. A key or
a variable that is not known is an error, so that no misspelled setting is silently ignored.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import platformdirs
from pydantic import BaseModel, ConfigDict, ValidationError, field_serializer, field_validator

from parley_server.auth.factory import AuthSettings
from parley_server.llm.model_settings import ModelSettings
from parley_server.metrics.endpoint import MetricsSettings
from parley_server.rpc.listener import ServerSettings
from parley_server.rpc.tls import TlsSettings
from parley_server.settings_sources import (
    DATA_DIR_VARIABLE,
    DELIMITER,
    PREFIX,
    ConfigError,
    Given,
    GivenSettings,
    Sources,
    closest,
    suggestion,
)
from parley_server.storage.retention import RetentionSettings

FILE_NAME = "parley.toml"
FALL_BACKS = {"base_url": "OPENAI_BASE_URL", "api_key": "OPENAI_API_KEY"}
# What a key without a base URL asks; any other server has models of its own names.
OFFICIAL_MODEL = "gpt-5-mini"

_STORAGE_URL = re.compile(r"(sqlite:///|postgres(ql)?://).+", re.DOTALL)
# Rather too much than too little: a password may hold what should have been escaped.
_PASSWORD = re.compile(r"(//[^:/@]*:).*(@)|(password=)[^&]*")

SettingsT = TypeVar("SettingsT", bound=BaseModel)


class StorageSettings(BaseModel):
    """`[storage]`: where conversations and runs are kept."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str = ""
    """The database: `sqlite:///PATH`, relative to the data directory; empty: `parley.db` in it. Or
    `postgresql://USER@HOST/DATABASE`, with what else libpq understands: `?host=/socket/directory`, `?sslmode=require`,
    `?passfile=PATH`."""

    @field_validator("url")
    @classmethod
    def _is_known(cls, url: str) -> str:
        if url and not _STORAGE_URL.fullmatch(url):
            raise ValueError("write sqlite:///PATH or postgresql://USER@HOST/DATABASE")
        return url

    @field_serializer("url")
    def _without_password(self, url: str) -> str:
        return _PASSWORD.sub(r"\1\3***\2", url)

    @property
    def is_postgres(self) -> bool:
        """Tell which engine it is."""
        return self.url.startswith("postgres")

    def sqlite_path(self, data_dir: Path) -> Path:
        """Return the database's file."""
        return data_dir / (self.url.removeprefix("sqlite:///") or "parley.db")


class LogSettings(BaseModel):
    """`[log]`: what the server says while it runs, on standard error."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["auto", "json", "console"] = "auto"
    """How lines look: `auto` writes for people on a terminal and JSON lines elsewhere."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least grave that is written; lines of the audit are written at any level."""

    requests: bool = True
    """Whether every call gets a line when it ends: method, status, duration, caller; never what was said in it."""

    hash_users: bool = False
    """Whether those lines tell users apart by a keyed hash and do not name them."""


SECTIONS: Mapping[str, type[BaseModel]] = {
    "server": ServerSettings,
    "tls": TlsSettings,
    "model": ModelSettings,
    "storage": StorageSettings,
    "auth": AuthSettings,
    "retention": RetentionSettings,
    "log": LogSettings,
    "metrics": MetricsSettings,
}


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings, checked. `config_file` is the file that was read, None where there is none."""

    data_dir: Path
    config_file: Path | None
    server: ServerSettings
    tls: TlsSettings
    storage: StorageSettings
    auth: AuthSettings
    retention: RetentionSettings
    log: LogSettings
    metrics: MetricsSettings
    model: ModelSettings
    has_model: bool

    def sections(self) -> dict[str, BaseModel]:
        """Return the sections by their names."""
        return {name: getattr(self, name) for name in SECTIONS}

    def model_settings(self) -> ModelSettings | None:
        """Return where the model is; None where neither a key nor a base URL is set, and the offline model serves."""
        return self.model if self.has_model else None


def load_settings(
    *,
    config: Path | None = None,
    data_dir: Path | None = None,
    flags: Mapping[tuple[str, str], str] | None = None,
    environment: Mapping[str, str] = os.environ,
) -> Settings:
    """Read all settings. `flags` are those of the command line, by section and key.

    Raises:
        ConfigError: files, variables or values are wrong; it tells all of them.
    """
    data_dir = data_dir or default_data_dir(environment)
    file = _find_file(config, data_dir)
    sources = Sources(SECTIONS)
    given = {} if file is None else sources.from_file(file)
    given |= sources.from_environment(environment)
    given |= {place: Given(value, f"--{place[1].replace('_', '-')}") for place, value in (flags or {}).items()}
    has_model = _complete_model(given, environment)
    settings = Settings(
        data_dir=data_dir,
        config_file=file,
        server=_section(given, "server", ServerSettings, sources.problems),
        tls=_section(given, "tls", TlsSettings, sources.problems),
        storage=_section(given, "storage", StorageSettings, sources.problems),
        auth=_section(given, "auth", AuthSettings, sources.problems),
        retention=_section(given, "retention", RetentionSettings, sources.problems),
        log=_section(given, "log", LogSettings, sources.problems),
        metrics=_section(given, "metrics", MetricsSettings, sources.problems),
        model=_section(given, "model", ModelSettings, sources.problems),
        has_model=has_model,
    )
    if sources.problems:
        raise ConfigError("\n".join(sources.problems))
    return settings


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


def _complete_model(given: GivenSettings, environment: Mapping[str, str]) -> bool:
    """Fill in what the model has from elsewhere; tell whether there is a model at all."""
    for key, variable in FALL_BACKS.items():
        if environment.get(variable):
            given.setdefault(("model", key), Given(environment[variable], f"environment variable {variable}"))
    if not _text(given, "base_url"):
        given.setdefault(("model", "name"), Given(OFFICIAL_MODEL, "default"))
    return bool(_text(given, "api_key") or _text(given, "base_url"))


def _text(given: GivenSettings, key: str) -> str:
    found = given.get(("model", key))
    return "" if found is None else str(found.value).strip()


def _section(given: GivenSettings, section: str, settings_type: type[SettingsT], problems: list[str]) -> SettingsT:
    values = {key: each.value for (name, key), each in given.items() if name == section}
    try:
        return settings_type.model_validate(values)
    except ValidationError as error:
        # Sentences of ours, because the error's own text repeats what was given: keys, too.
        faults = error.errors(include_url=False, include_context=False, include_input=False)
        known = settings_type.model_fields
        meant = {closest(str(fault["loc"][0]), known) for fault in faults if fault["type"] == "extra_forbidden"}
        for fault in faults:
            key = str(fault["loc"][0])
            # The misspelled key explains the one that is missing.
            if fault["type"] != "missing" or key not in meant:
                place = given.get((section, key))
                origin = f"{place.origin}: " if place else ""
                problems.append(f"{origin}[{section}] {key}: {_problem(fault['type'], fault['msg'], section, key)}")
        return settings_type.model_construct()  # nobody sees it: the problems are raised


def _problem(kind: str, message: str, section: str, key: str) -> str:
    match kind:
        case "missing":
            return f"is missing; set it, for example by {PREFIX}{section.upper()}{DELIMITER}{key.upper()}"
        case "extra_forbidden":
            return f"there is no such key; {suggestion(key, SECTIONS[section].model_fields)}"
        case _:
            return message.removeprefix("Value error, ")
