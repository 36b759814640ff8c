"""A model's server that tells what it was sent, the key among it: in whatever form, nobody hears it from us."""

from collections.abc import Iterator

import pytest
import secret_scan
from e2e.conftest import Stubs, run_agent, run_spec, watch
from model_server import ModelServer, RawAnswer, delta_frame, frame, text_frame
from parley.v1 import agent_service_pb2, run_event_pb2, run_pb2
from server_process import ServerProcess, running_server

KEY = "sk-echoed-3f9a1c77d2"
ECHO = f"Incorrect API key provided: Authorization: Bearer {KEY}"
PLAIN = {"Content-Type": "text/plain", "X-Echo": KEY, "Location": f"http://127.0.0.1:1/{KEY}"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, upstream: ModelServer) -> Iterator[ServerProcess]:
    environment = {
        "PARLEY_MODEL__BASE_URL": upstream.base_url,
        "PARLEY_MODEL__NAME": "tested",
        "PARLEY_MODEL__API_KEY": KEY,
        "PARLEY_MODEL__RETRIES": "0",
        "PARLEY_LOG__LEVEL": "debug",
    }
    with running_server(tmp_path_factory.mktemp("server"), environment=environment) as running:
        yield running
        # What is left is searched at the session's end, too; here while the server may still hold it back.
        assert secret_scan.found_below(running.data_dir) == []


def as_error(status: int) -> RawAnswer:
    error = {"message": ECHO, "type": KEY, "code": KEY, "param": KEY}
    return RawAnswer([frame({"error": error}).removeprefix(b"data: ")], status=status, headers=PLAIN)


ECHOES = {
    **{f"status {status}": as_error(status) for status in (302, 400, 401, 403, 404, 422, 429, 500, 503)},
    "a page": RawAnswer([f"<html>{ECHO}</html>".encode()], headers={"Content-Type": "text/html"}),
    "an error in the stream": RawAnswer([text_frame("So far"), frame({"error": {"message": ECHO, "code": KEY}})]),
    "an error as text": RawAnswer([text_frame("So far"), frame({"error": ECHO})]),
    "an event of errors": RawAnswer([b"event: error\ndata: " + ECHO.encode() + b"\n\n"]),
    "no JSON": RawAnswer([text_frame("So far"), b"data: {" + ECHO.encode() + b"\n\n"]),
    "a finish of its own": RawAnswer([text_frame("So far"), delta_frame(finish_reason=ECHO)]),
    "an error message": RawAnswer([frame({"choices": None, "error_message": ECHO})]),
    "no such protocol": RawAnswer([ECHO.encode()], headers={"Content-Type": f"application/{KEY}"}),
}


@pytest.mark.parametrize("echo", ECHOES)
async def test_a_key_that_a_model_s_server_echoes_is_told_to_nobody(
    stubs: Stubs, upstream: ModelServer, echo: str
) -> None:
    upstream.enqueue(ECHOES[echo])
    events = await run_agent(stubs, run_spec("hello"))
    run_id = events[0].run_id
    assert upstream.requests[-1].headers["Authorization"] == f"Bearer {KEY}"
    run = (await stubs.agents.GetRun(agent_service_pb2.GetRunRequest(run_id=run_id), timeout=10)).run
    told: list[run_event_pb2.RunEvent | run_pb2.Run] = [*events, *await watch(stubs, run_id), run]
    assert not [each for each in told if KEY.encode() in each.SerializeToString()]
    # A word for the finish that nobody knows is no error.
    assert (run.state == run_pb2.RUN_STATE_FAILED) == (echo != "a finish of its own")
