"""The built-in tools in a real server: what one conversation keeps the next one knows, and a page is read."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from e2e.conftest import RPC_DEADLINE_S, Stubs, run_spec, stubs_on, watch
from model_server import ModelServer
from parley.v1 import agent_service_pb2, tool_pb2
from server_process import ServerProcess
from unit.tools.builtin.counting_site import Site, answer, counting_site

SCRIPT = {
    "rules": [
        {"when": "^keep", "tool_calls": [{"name": "remember", "arguments": {"text": "Drinks tea"}}]},
        {"when": "^know", "tool_calls": [{"name": "recall", "arguments": {"query": "tea"}}]},
        {"when": "^read (?P<url>.+)", "tool_calls": [{"name": "fetch_url", "arguments": {"url": "{url}"}}]},
        {"after_tool": "*", "text": "Done."},
    ]
}


async def page(path: str) -> AsyncIterator[bytes]:
    yield answer(f"<title>Page</title><p>{path}".encode(), content_type="text/html")


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with counting_site(page) as opened:
        yield opened


@pytest.fixture
async def stubs(tmp_path: Path, site: Site) -> AsyncIterator[Stubs]:
    async with ModelServer(SCRIPT) as upstream:
        environment = {
            "PARLEY_MODEL__BASE_URL": upstream.base_url,
            "PARLEY_MODEL__NAME": "scripted",
            "PARLEY_MODEL__API_KEY": "sk-test",
            "PARLEY_TOOLS__FETCH_URL__ENABLED": "true",
            "PARLEY_TOOLS__FETCH_URL__ALLOW": f"127.0.0.1:{site.port}, 169.254.169.254",
            "PARLEY_TOOLS__FETCH_URL__ALLOW_PRIVATE_ADDRESSES": "true",
        }
        server = ServerProcess(tmp_path / "data", environment=environment)
        await asyncio.to_thread(server.start)
        try:
            async with grpc.aio.insecure_channel(server.address) as channel:
                yield stubs_on(channel)
        finally:
            await asyncio.to_thread(server.kill)


async def result_of(stubs: Stubs, text: str) -> tuple[int, object]:
    """Return how the one tool call of a run ended, and what the model was told of it."""
    request = agent_service_pb2.StartRunRequest(run=run_spec(text))
    run_id = (await stubs.agents.StartRun(request, timeout=RPC_DEADLINE_S)).run.run_id
    (finished,) = [
        event.tool_call_finished for event in await watch(stubs, run_id) if event.HasField("tool_call_finished")
    ]
    return finished.status, json.loads(finished.result_json)


async def test_they_work_in_a_server(stubs: Stubs, site: Site) -> None:
    ok, failed = tool_pb2.TOOL_CALL_STATUS_OK, tool_pb2.TOOL_CALL_STATUS_ERROR
    status, kept = await result_of(stubs, "keep it")
    assert status == ok
    assert isinstance(kept, dict)
    status, known = await result_of(stubs, "know it")
    assert (status, known) == (ok, {"ok": True, "result": {"notes": [kept["result"]], "more": False}})

    status, read = await result_of(stubs, f"read http://127.0.0.1:{site.port}/x")
    assert status == ok
    assert isinstance(read, dict)
    assert (read["result"]["title"], read["result"]["text"]) == ("Page", "/x")
    status, refused = await result_of(stubs, "read http://169.254.169.254/latest/meta-data/")
    assert status == failed
    assert isinstance(refused, dict)
    assert refused["error"]["code"] == "address_not_allowed"
