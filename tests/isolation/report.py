"""The table of what is planted and what finds it, in docs/isolation.md."""

import re
from collections.abc import Sequence
from pathlib import Path

from isolation.calibration import Caught

_BEGIN, _END = "<!-- plants: made by `make canary` -->", "<!-- end of plants -->"


def plants_table(found: Sequence[Caught]) -> str:
    """Write a line for each planted leak."""
    head = "| leak | what the server does | calls until it is found | found by |\n| --- | --- | --- | --- |\n"
    return head + "\n".join(each.row() for each in found)


def write_plants(path: Path, found: Sequence[Caught]) -> None:
    """Put the table in its place."""
    text = path.read_text(encoding="utf-8")
    between = re.compile(f"{re.escape(_BEGIN)}.*{re.escape(_END)}", re.DOTALL)
    assert between.search(text), f"{path} has no place for it"
    path.write_text(between.sub(lambda _: f"{_BEGIN}\n{plants_table(found)}\n{_END}", text), encoding="utf-8")
