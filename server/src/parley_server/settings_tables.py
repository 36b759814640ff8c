"""The shape of the configuration: which tables there are, and which of their keys are secrets.

[model]               a section
[model.profile]       a table of a section
[providers.groq]      one of a kind of tables that the operator names
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args

from pydantic import BaseModel, SecretStr

PREFIX = "PARLEY_"
DELIMITER = "__"
FILE_SUFFIX = "_file"

# Where a setting stands: the names of its table, then its key.
Place = tuple[str, ...]

# No secret as a whole, but it may hold a password.
_SECRET_TOO = frozenset({("storage", "url")})
_BARE = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class Tables:
    """All tables there may be: the `sections`, and the kinds of tables of which there is one for every name given."""

    sections: Mapping[str, type[BaseModel]]
    named: Mapping[str, type[BaseModel]]

    @property
    def names(self) -> frozenset[str]:
        """The first words of all tables."""
        return frozenset({*self.sections, *self.named})

    def model_at(self, place: Place) -> type[BaseModel] | None:
        """Return the model of the table that stands at a place; None where no table with keys does."""
        if place[0] in self.sections:
            model, below = self.sections[place[0]], place[1:]
        elif place[0] in self.named and len(place) > 1:
            model, below = self.named[place[0]], place[2:]
        else:
            return None
        for key in below:
            if key not in sub_tables(model):
                return None
            model = sub_tables(model)[key]
        return model

    def is_table(self, place: Place) -> bool:
        """Tell whether a place is a table's and no key's."""
        return self.is_kind(place) or self.model_at(place) is not None

    def is_kind(self, place: Place) -> bool:
        """Tell whether only the tables below a place have keys."""
        return len(place) == 1 and place[0] in self.named

    def place_of(self, variable: str) -> Place:
        """Return what a variable sets; `variable` is its name in small letters, without the prefix."""
        words = tuple(variable.split(DELIMITER))
        depth = 1
        while depth < len(words) - 1 and self.is_table(words[: depth + 1]):
            depth += 1
        return (*words[:depth], DELIMITER.join(words[depth:]))

    def secret_of_file(self, place: Place) -> Place | None:
        """Return the secret whose file a setting names; None for any other setting."""
        model = self.model_at(place[:-1]) if len(place) > 1 else None
        key = place[-1].removesuffix(FILE_SUFFIX)
        if model is None or key == place[-1] or key not in secret_keys(place[0], model):
            return None
        return (*place[:-1], key)


def sub_tables(model: type[BaseModel]) -> dict[str, type[BaseModel]]:
    """Return the tables of a table, by their keys."""
    fields = ((key, field.annotation) for key, field in model.model_fields.items())
    return {key: kind for key, kind in fields if isinstance(kind, type) and issubclass(kind, BaseModel)}


def secret_keys(name: str, model: type[BaseModel]) -> frozenset[str]:
    """Return the keys of a table that a file of its own may hold; `name` is the first word of the table's."""
    return frozenset(
        key
        for key, field in model.model_fields.items()
        if (SecretStr in {field.annotation, *get_args(field.annotation)} or (name, key) in _SECRET_TOO)
        # A table may have such a key of its own.
        and key + FILE_SUFFIX not in model.model_fields
    )


def header(place: Place) -> str:
    """Write the line that begins a table."""
    return f"[{'.'.join(name if _BARE.fullmatch(name) else json.dumps(name) for name in place)}]"


def variable(place: Place) -> str:
    """Name the environment variable of a setting."""
    return PREFIX + DELIMITER.join(place).upper()
