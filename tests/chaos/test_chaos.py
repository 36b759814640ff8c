"""A server that is killed again and again keeps every promise about its runs. `make chaos` does it a thousand times."""

import secrets
from pathlib import Path

import pytest
from chaos.campaign import Plan, play
from postgres_server import PostgresServer
from shim import why_not

pytestmark = pytest.mark.chaos


@pytest.fixture
def seed() -> str:
    return secrets.token_hex(4)


async def test_kills_on_sqlite_break_no_promise(seed: str, tmp_path: Path) -> None:
    played = await play(Plan(12, seed), tmp_path)
    assert not played.violations, seed
    assert len(played.history.kills) >= 12


async def test_kills_on_postgresql_break_no_promise(seed: str, postgres: PostgresServer, tmp_path: Path) -> None:
    assert not (await play(Plan(4, seed, postgres=postgres), tmp_path)).violations, seed


@pytest.mark.skipif(bool(why_not()), reason=why_not())
async def test_power_cuts_on_sqlite_break_no_promise(seed: str, tmp_path: Path) -> None:
    assert not (await play(Plan(6, seed, power_cuts=True), tmp_path)).violations, seed
