"""The regular expressions of a schema: found in time linear in the text, and small enough to be compiled at once."""

import re
from functools import lru_cache
from typing import Annotated

from pydantic import StringConstraints, TypeAdapter
from pydantic_core import SchemaError

# What the patterns of a schema may come to. The largest takes some 50 ms to compile, and all else waits meanwhile.
MAX_PATTERN_SIZE = 10_000
_MAX_PATTERN_CHARS = 1000

_TOKEN = re.compile(
    r"\{(?P<least>\d+)(?:,(?P<most>\d*))?\}"
    r"|(?P<other>\\[pP]\{[^}]*\}|\\x\{[^}]*\}|\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|.)",
    re.DOTALL,
)
# Classes of Unicode have hundreds of ranges.
_WIDE = re.compile(r"\\[wWdDsSpPbB]|\[:")
_WIDE_SIZE = 64
_CLASS_SIZE = 4


@lru_cache(maxsize=256)
def text_with(pattern: str) -> "TypeAdapter[str]":
    """Return what tells texts that match a pattern somewhere. Raises SchemaError for what is none."""
    return TypeAdapter(Annotated[str, StringConstraints(pattern=pattern)])


def is_pattern(pattern: str) -> bool:
    """Tell whether a pattern is one: small, and without backreferences and lookaround, which take more than time."""
    try:
        return pattern_size(pattern) <= MAX_PATTERN_SIZE and bool(text_with(pattern))
    except SchemaError:
        return False


def pattern_size(pattern: str) -> int:
    """Estimate what a pattern is when its counted repetitions are written out; a long one is merely too large."""
    if len(pattern) > _MAX_PATTERN_CHARS:
        return MAX_PATTERN_SIZE + 1
    groups, last = [0], 0
    for token in _TOKEN.finditer(pattern):
        other = token["other"]
        if other == "(":
            groups.append(0)
        elif other == ")" and len(groups) > 1:
            last = groups.pop()
            groups[-1] += last
        elif other is None:
            repeated = last * max(int(token["least"]), int(token["most"] or 0), 1)
            groups[-1] += repeated - last
            last = repeated
        else:
            last = _WIDE_SIZE if _WIDE.search(other) else _CLASS_SIZE if len(other) > 2 or other == "." else 1
            groups[-1] += last
    return sum(groups)
