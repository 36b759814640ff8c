"""What is opened ahead: once, and again by whoever asks after it has failed."""

import asyncio
import os
import threading
from pathlib import Path

import pytest
from parley_server.domain.errors import Reason
from parley_server.llm.model_service import ModelError
from parley_server.llm.opening import Opening


async def test_a_failed_opening_is_tried_again_by_the_next_who_asks(tmp_path: Path) -> None:
    path = tmp_path / "late"
    opening = Opening(path.read_text)
    for _ in range(2):
        with pytest.raises(ModelError) as caught:
            await opening.result()
        assert caught.value.reason == Reason.MODEL_UNAVAILABLE
        assert await opening.settled() is None
    path.write_text("there")
    assert await opening.result() == "there"
    path.unlink()
    assert await opening.result() == "there"
    assert await opening.settled() == "there"


async def test_who_goes_away_takes_the_opening_from_nobody() -> None:
    let = threading.Event()
    opening = Opening(lambda: let.wait() and os.getpid())
    leaving = asyncio.create_task(opening.result())
    await asyncio.sleep(0)
    leaving.cancel()
    let.set()
    assert await opening.result() == os.getpid()
