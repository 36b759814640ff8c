"""A sample of the machine in every run of the tests; `make canary` plays it large."""

import asyncio
from pathlib import Path

import pytest
from isolation.cases import CASES
from isolation.machine import run_machine
from isolation.methods import name_of, user_methods
from isolation.stage import Stage, open_stage
from postgres_server import PostgresServer

EXAMPLES, STEPS = 2, 50
# A dead server leaks nothing.
LEAST_ANSWERED = 0.3


@pytest.mark.parametrize("method", user_methods(), ids=name_of)
def test_every_rpc_has_a_case(method: object) -> None:
    assert name_of(method) in CASES  # type: ignore[arg-type]  # as user_methods returns them


def test_every_case_is_of_an_rpc() -> None:
    assert CASES.keys() <= {name_of(method) for method in user_methods()}


def check_played(stage: Stage) -> None:
    """Most calls were answered, and every place that is looked through had something in it."""
    counts = stage.world.counts
    assert counts["OK"] + counts["OPEN"] > LEAST_ANSWERED * counts.total(), counts
    assert all(stage.world.scanned_bytes[where] for where in ("log", "model", "tool", "host")), (
        stage.world.scanned_bytes
    )


async def test_on_sqlite_nobody_is_shown_what_is_not_his(tmp_path: Path) -> None:
    async with open_stage(tmp_path) as stage:
        loop = asyncio.get_running_loop()
        await asyncio.to_thread(run_machine, stage, loop, examples=EXAMPLES, steps=STEPS, is_sample=True)
        check_played(stage)


async def test_on_postgresql_nobody_is_shown_what_is_not_his(tmp_path: Path, postgres: PostgresServer) -> None:
    async with postgres.database() as url, open_stage(tmp_path, {"PARLEY_STORAGE__URL": url}) as stage:
        loop = asyncio.get_running_loop()
        await asyncio.to_thread(run_machine, stage, loop, examples=EXAMPLES // 2, steps=STEPS, is_sample=True)
        check_played(stage)
