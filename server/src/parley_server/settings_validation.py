"""Makes settings of what was given, and says what is wrong with it in sentences that repeat no value."""

import difflib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from parley_server.settings_tables import Place, header, sub_tables, variable

SettingsT = TypeVar("SettingsT", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Given:
    """A setting as it was given, and the place that gave it, for what is said of it."""

    value: object
    origin: str


GivenSettings = dict[Place, Given]


def validated(given: GivenSettings, place: Place, model: type[SettingsT], problems: list[str]) -> SettingsT:
    """Return the settings of the table at a place; what is wrong is added to `problems`, and nobody uses them then."""
    try:
        return model.model_validate(_values(given, place, model))
    except ValidationError as error:
        problems += _problems(error, given, place, model)
        return model.model_construct()


def validated_below(
    given: GivenSettings, kind: str, model: type[SettingsT], problems: list[str]
) -> dict[str, SettingsT]:
    """Return the settings of all tables of a kind by their names, in the order in which they were given."""
    names = dict.fromkeys(place[1] for place in given if place[0] == kind)
    return {name: validated(given, (kind, name), model, problems) for name in names}


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return what to write instead of a name that is not known."""
    known = sorted(known)
    close = closest(name, known)
    return f"did you mean {close}?" if close else f"there are {', '.join(known)}"


def closest(name: str, known: Iterable[str]) -> str:
    """Return the known name that was meant, empty when none is near."""
    return next(iter(difflib.get_close_matches(name, known, n=1)), "")


def _values(given: GivenSettings, place: Place, model: type[BaseModel]) -> dict[str, object]:
    values = {inner[-1]: each.value for inner, each in given.items() if inner[:-1] == place}
    tables = {key: _values(given, (*place, key), table) for key, table in sub_tables(model).items()}
    return {**values, **tables}


def _problems(error: ValidationError, given: GivenSettings, place: Place, model: type[BaseModel]) -> Iterator[str]:
    # Sentences of ours, because the error's own text repeats what was given: keys, too.
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    found = [(*_setting(place, model, fault["loc"]), fault["type"], fault["msg"]) for fault in faults]
    meant = {
        (*at[:-1], closest(at[-1], table.model_fields)) for at, table, kind, _ in found if kind == "extra_forbidden"
    }
    for at, table, kind, message in found:
        # The misspelled key explains the one that is missing.
        if kind != "missing" or at not in meant:
            origin = f"{given[at].origin}: " if at in given else ""
            yield f"{origin}{header(at[:-1])} {at[-1]}: {_problem(kind, message, at, table)}"


def _setting(place: Place, model: type[BaseModel], loc: tuple[int | str, ...]) -> tuple[Place, type[BaseModel]]:
    """Return the setting that pydantic's `loc` means, and the model of its table."""
    key, *inner = map(str, loc)
    if inner and key in sub_tables(model):
        return _setting((*place, key), sub_tables(model)[key], tuple(inner))
    return (*place, key), model


def _problem(kind: str, message: str, at: Place, table: type[BaseModel]) -> str:
    match kind:
        case "missing":
            return f"is missing; set it, for example by {variable(at)}"
        case "extra_forbidden":
            return f"there is no such key; {suggestion(at[-1], table.model_fields)}"
        case _:
            return message.removeprefix("Value error, ")
