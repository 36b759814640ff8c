"""The table of what is planted and what finds it, in docs/isolation.md."""

import re
from collections.abc import Sequence
from pathlib import Path

from isolation.calibration import Caught
from isolation.plants import PLANTS

_BEGIN, _END = "<!-- plants: made by `make canary` -->", "<!-- end of plants -->"
_HEAD = "| leak | what the server does | calls until it is found | found by |\n| --- | --- | --- | --- |"
_ROW = re.compile(r"^\| `(\w+)` \| .+$", re.MULTILINE)


def write_plants(path: Path, found: Sequence[Caught]) -> None:
    """Put the table in its place: a line for each planted leak, of those that were not looked for the one it had."""
    text = path.read_text(encoding="utf-8")
    between = re.search(f"{re.escape(_BEGIN)}.*{re.escape(_END)}", text, re.DOTALL)
    assert between, f"{path} has no place for it"
    rows = {row[1]: row[0] for row in _ROW.finditer(between[0])} | {each.plant.name: each.row() for each in found}
    table = "\n".join([_BEGIN, _HEAD, *(rows[name] for name in PLANTS if name in rows), _END])
    path.write_text(text.replace(between[0], table), encoding="utf-8")
