"""A server for a module's tests; those that stop it or want it otherwise run one of their own."""

from collections.abc import AsyncIterator

import pytest
from rpc.chassis import Chassis, Runs, running, say_who, three_events


@pytest.fixture(scope="module")
async def module_chassis() -> AsyncIterator[Chassis]:
    async with running() as chassis:
        yield chassis


@pytest.fixture
async def chassis(module_chassis: Chassis) -> Chassis:
    """The module's server, serving as a fresh one would."""
    runs: Runs = module_chassis.runs
    runs.answer, runs.stream = say_who, three_events
    return module_chassis
