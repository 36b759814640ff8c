"""Untrusted text as a person can judge it: what does not show as itself is written out."""

import json
import re

_PLAIN_NAME = re.compile(r"[\w.-]+")


def visible(text: str) -> str:
    r"""Return the text with an escape for every character that a terminal obeys or hides: `\x1b`, `\u202e`.

    Those are controls, changes of direction, invisible characters, and every blank but the space.
    """
    return "".join(character if character.isprintable() else _escape(character) for character in text)


def argument_lines(arguments_json: str) -> list[str]:
    """Write a call's arguments, whole: a line for each, more for a nested one; none has a control character."""
    try:
        arguments = json.loads(arguments_json)
        if isinstance(arguments, dict):
            return [visible(line) for name, value in arguments.items() for line in _lines(str(name), value)]
    except (ValueError, RecursionError):
        pass  # what the server let through is shown as it is
    return [visible(arguments_json)]


def shortened(text: str, most: int) -> str:
    """Return at most `most` characters of the text; what was cut off is marked."""
    return text if len(text) <= most else text[: most - 1] + "…"


def _lines(name: str, value: object) -> list[str]:
    # A name may be anything, too, and must not look like more than one.
    shown = name if _PLAIN_NAME.fullmatch(name) else json.dumps(name, ensure_ascii=False)
    return f"{shown}: {json.dumps(value, ensure_ascii=False, indent=2)}".split("\n")


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode()
