"""Fills `{name}` and `{name.field}` in a script's texts: one pass, values are never read again as templates."""

import re
from collections.abc import Callable

from pydantic import JsonValue

_PLACEHOLDER = re.compile(r"\{\{|\}\}|\{([A-Za-z_]\w*(?:\.\w+)*)\}")


def placeholders(template: JsonValue) -> set[str]:
    """Return what a template asks for; of a list or an object, what its strings ask for."""
    match template:
        case str():
            return {found[1] for found in _PLACEHOLDER.finditer(template) if found[1]}
        case list():
            return set().union(*map(placeholders, template))
        case dict():
            return set().union(*map(placeholders, template.values()))
        case _:
            return set()


def fill(template: str, value_of: Callable[[str], str]) -> str:
    """Replace each placeholder by its value; `{{` and `}}` stand for braces, and other braces for themselves."""
    return _PLACEHOLDER.sub(lambda found: value_of(found[1]) if found[1] else found[0][0], template)


def fill_json(template: JsonValue, value_of: Callable[[str], str]) -> JsonValue:
    """Fill the strings of a JSON value and leave the rest as it is."""
    match template:
        case str():
            return fill(template, value_of)
        case list():
            return [fill_json(element, value_of) for element in template]
        case dict():
            return {name: fill_json(element, value_of) for name, element in template.items()}
        case _:
            return template
