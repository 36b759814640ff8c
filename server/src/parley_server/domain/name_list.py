"""Lists of names as operators write them: separated by commas where a line is all there is, and with patterns."""

from collections.abc import Iterable
from typing import Annotated

from pydantic import BeforeValidator, Field, StringConstraints


def listed(value: object) -> object:
    """Read what the environment writes with commas; whatever is no text is left as it is."""
    return [word.strip() for word in value.split(",") if word.strip()] if isinstance(value, str) else value


def fits(patterns: Iterable[str], name: str) -> bool:
    """Tell whether a name is one of the patterns, or begins as one that ends in `*` does."""
    return any(name.startswith(each[:-1]) if each.endswith("*") else name == each for each in patterns)


Names = Annotated[tuple[str, ...], BeforeValidator(listed)]
Pattern = Annotated[str, StringConstraints(pattern=r"^[^*\s]{0,128}[*]?$", min_length=1)]
Patterns = Annotated[tuple[Pattern, ...], BeforeValidator(listed), Field(max_length=256)]
