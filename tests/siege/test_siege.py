"""A server that is attacked serves its other clients all the while, within bounds, and keeps nothing of it."""

import os
from pathlib import Path

import pytest
from siege.attacks import ATTACKS
from siege.besieging import HEADINGS, Outcome, besiege
from siege.conftest import Besieged, besieged

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads vital signs from Linux's /proc")

BEGIN, END = "<!-- made by `make siege` -->", "<!-- until here -->"


def faults(target: Besieged, outcome: Outcome) -> list[str]:
    """What is wrong with an outcome."""
    found = [f"{outcome.name}: the neighbour was told {failure}" for failure in outcome.served.failures]
    if outcome.growth_mib > ATTACKS[outcome.name].max_growth_mib:
        found.append(f"{outcome.name}: the memory grew by {outcome.growth_mib} MiB")
    if "internal_error" in target.server.log:
        found.append(f"{outcome.name}: {target.server.log}")
    return found


@pytest.mark.parametrize("name", ATTACKS)
async def test_an_attack_is_borne(name: str, target: Besieged) -> None:
    size = ATTACKS[name].size // 10
    outcome = await besiege(target.server.address, target.server.pid, target.run_id, name, size=size, hold_s=0.3)
    assert not faults(target, outcome)


@pytest.mark.siege
@pytest.mark.timeout(600)
async def test_every_attack_at_full_size_is_borne(tmp_path: Path) -> None:
    """Prints the table; with PARLEY_SIEGE_TABLE it is written into that document, between the markers."""
    rows, found = [], []
    for number, (name, attack) in enumerate(ATTACKS.items()):
        async with besieged(tmp_path / str(number)) as target:
            address, pid = target.server.address, target.server.pid
            outcome = await besiege(address, pid, target.run_id, name, size=attack.size, hold_s=attack.hold_s)
            print(outcome.row)  # noqa: T201  # the figures are what one runs it for
            rows.append(outcome.row)
            found += faults(target, outcome)
    if document := os.environ.get("PARLEY_SIEGE_TABLE"):
        put_into(Path(document), rows)
    assert not found


def put_into(document: Path, rows: list[str]) -> None:
    head = [f"| {' | '.join(HEADINGS)} |", "| --- " * len(HEADINGS) + "|"]
    before, _, rest = document.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    document.write_text(before + "\n".join([BEGIN, "", *head, *rows, "", END]) + after, encoding="utf-8")
