"""How calls are accepted: at a cost that does not grow with the contract, and never by a server that has stopped to."""

import asyncio
import contextlib
import logging
from collections.abc import Collection
from typing import Literal

import grpc
import pytest
from parley_server.rpc import core_server
from rpc.chassis import GET_RUN, running


async def test_to_accept_a_call_nobody_looks_at_every_method(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at: list[int] = []
    wait = asyncio.wait

    def counted(waited_for: Collection[asyncio.Future[None]], *, return_when: Literal["FIRST_COMPLETED"]) -> object:
        looked_at.append(len(waited_for))
        return wait(waited_for, return_when=return_when)

    monkeypatch.setattr(asyncio, "wait", counted)
    async with running() as chassis:
        for _ in range(5):
            await chassis.get_run()
    assert looked_at == [1]


async def test_a_method_that_can_accept_no_more_ends_the_server(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Failing(core_server._AioServer):
        async def _request_registered_call(self, method: bytes) -> object:
            if method == GET_RUN.encode():
                asked.append(method)
                if len(asked) > 1:
                    raise OSError("no more")
            return await super()._request_registered_call(method)

    asked: list[bytes] = []
    monkeypatch.setattr(core_server, "_AioServer", Failing)
    with caplog.at_level(logging.ERROR):
        async with running() as chassis:
            with contextlib.suppress(grpc.aio.AioRpcError):
                await chassis.get_run()
            with pytest.raises(grpc.aio.AioRpcError) as failure:
                await chassis.get_run()
    assert failure.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "no more" in caplog.text
