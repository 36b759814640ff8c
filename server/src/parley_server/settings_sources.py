"""Where settings are written: the configuration file and the environment, every value with the place it stands in."""

import difflib
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from pydantic import BaseModel, SecretStr

from parley_server.domain.errors import StartError

PREFIX = "PARLEY_"
DELIMITER = "__"
FILE_SUFFIX = "_file"
DATA_DIR_VARIABLE = "PARLEY_HOME"
# Read by clients, and so none of the server's.
_OTHERS_VARIABLES = frozenset(
    {
        DATA_DIR_VARIABLE,
        "PARLEY_TARGET",
        "PARLEY_API_KEY",
        "PARLEY_TLS",
        "PARLEY_ROOT_CERTIFICATES",
        "PARLEY_CLIENT_CERTIFICATE",
        "PARLEY_CLIENT_KEY",
    }
)
# No secret as a whole, but it may hold a password.
_SECRET_TOO = frozenset({("storage", "url")})


class ConfigError(StartError):
    """Settings are wrong; the text is a line for each, which names where it stands, the setting, and the remedy."""


@dataclass(frozen=True, slots=True)
class Given:
    """A setting as it was given, and the place that gave it, for what is said of it."""

    value: object
    origin: str


GivenSettings = dict[tuple[str, str], Given]


class Sources:
    """Reads the places; what is wrong in them is noted in `problems` and left out of what they give."""

    def __init__(self, sections: Mapping[str, type[BaseModel]]) -> None:
        self._sections = sections
        self.problems: list[str] = []

    def from_file(self, file: Path) -> GivenSettings:
        """Read a configuration file. Raises ConfigError when it cannot be read at all."""
        given: GivenSettings = {}
        for section, table in _tables(file).items():
            if not self._knows(section, str(file)):
                continue
            if isinstance(table, dict):
                given |= {(section, key): Given(value, str(file)) for key, value in table.items()}
            else:
                self.problems.append(f"{file}: {section} is a table; write [{section}] and its keys below")
        return self._with_secrets_of_files(given)

    def from_environment(self, environment: Mapping[str, str]) -> GivenSettings:
        """Read the variables that are the server's."""
        given: GivenSettings = {}
        for name in sorted(environment.keys() - _OTHERS_VARIABLES):
            if not name.startswith(PREFIX):
                continue
            section, delimiter, key = name.removeprefix(PREFIX).lower().partition(DELIMITER)
            if not delimiter:
                self._refuse_single_underscore(name, section)
            elif self._knows(section, f"environment variable {name}"):
                given[section, key] = Given(environment[name], f"environment variable {name}")
        return self._with_secrets_of_files(given)

    def _knows(self, section: str, origin: str) -> bool:
        if section not in self._sections:
            self.problems.append(f"{origin}: there is no section [{section}]; {suggestion(section, self._sections)}")
        return section in self._sections

    def _refuse_single_underscore(self, name: str, rest: str) -> None:
        section, _, key = rest.partition("_")
        if section in self._sections:
            meant = f"{PREFIX}{section.upper()}{DELIMITER}{key.upper() or 'KEY'}"
            self.problems.append(f"environment variable {name} is not read; write {meant}, with two underscores")

    def _with_secrets_of_files(self, given: GivenSettings) -> GivenSettings:
        """Put the content of `api_key_file` in the place of `api_key`, and so on for every secret."""
        secrets = {(section, key + FILE_SUFFIX): (section, key) for section, key in secret_keys(self._sections)}
        read = {place: each for place, each in given.items() if place not in secrets}
        for place, each in given.items():
            if place in secrets:
                secret = secrets[place]
                try:
                    read[secret] = _content(place, each, taken=secret in given)
                except ConfigError as error:
                    self.problems.append(str(error))
        return read


def secret_keys(sections: Mapping[str, type[BaseModel]]) -> Iterator[tuple[str, str]]:
    """Return the section and key of every setting that a file of its own may hold."""
    for section, model in sections.items():
        for key, field in model.model_fields.items():
            is_secret = SecretStr in {field.annotation, *get_args(field.annotation)} or (section, key) in _SECRET_TOO
            # A section may have such a key of its own.
            if is_secret and key + FILE_SUFFIX not in model.model_fields:
                yield section, key


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return what to write instead of a name that is not known."""
    known = sorted(known)
    close = closest(name, known)
    return f"did you mean {close}?" if close else f"there are {', '.join(known)}"


def closest(name: str, known: Iterable[str]) -> str:
    """Return the known name that was meant, empty when none is near."""
    return next(iter(difflib.get_close_matches(name, known, n=1)), "")


def _tables(file: Path) -> dict[str, object]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{file}: {error}; correct the line") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: cannot be read as UTF-8 text; check the file and its rights") from error


def _content(place: tuple[str, str], given: Given, *, taken: bool) -> Given:
    section, key = place
    if taken:
        raise ConfigError(f"{given.origin}: [{section}] {key}: {key.removesuffix(FILE_SUFFIX)} is set, too; keep one")
    path = Path(str(given.value)).expanduser()
    try:
        content = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{given.origin}: [{section}] {key}: {path} cannot be read as UTF-8 text; check the file and its rights"
        ) from error
    if not content:
        raise ConfigError(f"{given.origin}: [{section}] {key}: {path} is empty; write the secret into it")
    return Given(content, f"{given.origin}, {path}")
