"""Calibration: a server with a leak in it is found out. Here for some leaks; `make canary` plants them all."""

import re
from pathlib import Path

import pytest
from isolation.calibration import find_out
from isolation.plants import PLANTS

# One of each kind: a list, a token, a context, what the model is told, what a tool host is.
SAMPLE = ("list_runs", "page_tokens", "tool_context", "history", "host_token_of_user")
LEAST = 25
TABLE = Path(__file__).parents[2] / "docs" / "isolation.md"


@pytest.mark.parametrize("name", SAMPLE)
async def test_a_planted_leak_is_found(name: str, tmp_path: Path) -> None:
    found = await find_out(PLANTS[name], tmp_path)
    assert found.leak
    assert not found.leak.startswith("fault")


def test_there_are_leaks_of_every_kind_and_the_guide_has_all_of_them() -> None:
    told = re.findall(r"^\| `(\w+)` \| .+ \| \d+ \| (.+) \|$", TABLE.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(PLANTS) >= LEAST
    assert [name for name, _ in told] == list(PLANTS)
    assert "**not found**" not in {found for _, found in told}
