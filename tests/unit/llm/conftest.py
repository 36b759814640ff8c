"""A model server for every test."""

from collections.abc import AsyncIterator

import pytest
from model_server import ModelServer


@pytest.fixture
async def upstream() -> AsyncIterator[ModelServer]:
    async with ModelServer() as server:
        yield server
