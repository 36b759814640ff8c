"""Where settings are written: the configuration file and the environment, every value with the place it stands in."""

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

from parley_server.domain.errors import StartError
from parley_server.settings_tables import DELIMITER, FILE_SUFFIX, PREFIX, Place, Tables, header, variable
from parley_server.settings_validation import Given, GivenSettings, suggestion

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


class ConfigError(StartError):
    """Settings are wrong; the text is a line for each, which names where it stands, the setting, and the remedy."""


class Sources:
    """Reads the places; what is wrong in them is noted in `problems` and left out of what they give."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self.problems: list[str] = []

    def from_file(self, file: Path) -> GivenSettings:
        """Read a configuration file. Raises ConfigError when it cannot be read at all."""
        given: GivenSettings = {}
        for name, value in _content_of(file).items():
            if self._knows(name, str(file)):
                given.update(self._below((name,), value, str(file)))
        return self._with_secrets_of_files(given)

    def from_environment(self, environment: Mapping[str, str]) -> GivenSettings:
        """Read the variables that are the server's."""
        given: GivenSettings = {}
        for name in sorted(environment.keys() - _OTHERS_VARIABLES):
            if not name.startswith(PREFIX):
                continue
            rest = name.removeprefix(PREFIX).lower()
            place = self._tables.place_of(rest)
            if DELIMITER not in rest:
                self._refuse_single_underscore(name, rest)
            elif self._knows(place[0], f"environment variable {name}"):
                given.update(self._below(place, environment[name], f"environment variable {name}"))
        return self._with_secrets_of_files(given)

    def _below(self, place: Place, value: object, origin: str) -> Iterator[tuple[Place, Given]]:
        """Yield what was given at a place: a setting, or all that stands in a table."""
        if not self._tables.is_table(place):
            yield place, Given(value, origin)
        elif not isinstance(value, dict):
            self.problems.append(f"{origin}: {place[-1]} is a table; write {header(place)} and its keys below")
        else:
            if self._tables.is_kind(place[:-1]):
                yield place, Given({}, origin)  # one without keys is there, too
            for key, each in value.items():
                yield from self._below((*place, key), each, origin)

    def _knows(self, name: str, origin: str) -> bool:
        known = self._tables.names
        if name not in known:
            self.problems.append(f"{origin}: there is no section [{name}]; {suggestion(name, known)}")
        return name in known

    def _refuse_single_underscore(self, name: str, rest: str) -> None:
        section, _, key = rest.partition("_")
        if section in self._tables.names:
            meant = variable((section, key or "KEY"))
            self.problems.append(f"environment variable {name} is not read; write {meant}, with two underscores")

    def _with_secrets_of_files(self, given: GivenSettings) -> GivenSettings:
        """Put the content of `api_key_file` in the place of `api_key`, and so on for every secret."""
        read: GivenSettings = {}
        for place, each in given.items():
            secret = self._tables.secret_of_file(place)
            if secret is None:
                read[place] = each
                continue
            try:
                read[secret] = _secret(place, each, taken=secret in given)
            except ConfigError as error:
                self.problems.append(str(error))
        return read


def _content_of(file: Path) -> dict[str, object]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{file}: {error}; correct the line") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: cannot be read as UTF-8 text; check the file and its rights") from error


def _secret(place: Place, given: Given, *, taken: bool) -> Given:
    where = f"{given.origin}: {header(place[:-1])} {place[-1]}"
    if taken:
        raise ConfigError(f"{where}: {place[-1].removesuffix(FILE_SUFFIX)} is set, too; keep one")
    path = Path(str(given.value)).expanduser()
    try:
        content = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{where}: {path} cannot be read as UTF-8 text; check the file and its rights") from error
    if not content:
        raise ConfigError(f"{where}: {path} is empty; write the secret into it")
    return Given(content, f"{given.origin}, {path}")
