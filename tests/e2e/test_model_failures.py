"""A model that fails ends the run with a reason; what it said before stands, marked as cut."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e.conftest import Stubs, run_agent, run_spec
from google.rpc import error_details_pb2
from model_server import DONE, ModelServer, RawAnswer, finish_frame, text_frame
from parley.v1 import run_event_pb2, run_pb2
from run_history import check_run, text_of
from server_process import ServerProcess, running_server

SECRET = "sk-very-secret-key"


@pytest.fixture(scope="module")
def server(upstream: ModelServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    data_dir: Path = tmp_path_factory.mktemp("server")
    environment = {
        "PARLEY_MODEL__BASE_URL": upstream.base_url,
        "PARLEY_MODEL__NAME": "tested",
        "PARLEY_MODEL__API_KEY": SECRET,
        "PARLEY_MODEL__GAP_TIMEOUT_S": "1",
        "PARLEY_MODEL__RETRIES": "0",
    }
    with running_server(data_dir, environment=environment) as running:
        yield running
        assert SECRET not in running.log


def reason_of_end(end: run_event_pb2.RunFinished) -> str:
    info = error_details_pb2.ErrorInfo()
    end.error.details[0].Unpack(info)
    return str(info.reason)


@pytest.mark.parametrize(
    ("answer", "reason", "text"),
    [
        (RawAnswer([b'{"error": {"message": "sk-leak"}}'], status=401), "MODEL_AUTHENTICATION_FAILED", ""),
        (RawAnswer([b"{}"], status=429), "MODEL_RATE_LIMITED", ""),
        (RawAnswer([b"nope"], status=400), "MODEL_REQUEST_REJECTED", ""),
        (RawAnswer([b"oops"], status=503), "MODEL_UNAVAILABLE", ""),
        (RawAnswer([text_frame("Half an ans")]), "MODEL_STREAM_INCOMPLETE", "Half an ans"),
        (RawAnswer([text_frame("Half an ans")], then="reset"), "MODEL_STREAM_INCOMPLETE", "Half an ans"),
        (RawAnswer([text_frame("So far "), b"data: {broken\n\n"]), "MODEL_RESPONSE_INVALID", "So far "),
        (RawAnswer([text_frame("So far ")], then="hang"), "MODEL_TIMEOUT", "So far "),
    ],
)
async def test_each_failure_has_its_reason(
    stubs: Stubs, upstream: ModelServer, answer: RawAnswer, reason: str, text: str
) -> None:
    upstream.enqueue(answer)
    events = await run_agent(stubs, run_spec("hello"))
    check_run(events)
    end = events[-1].run_finished
    assert (end.state, end.stop_reason) == (run_pb2.RUN_STATE_FAILED, run_pb2.STOP_REASON_ERROR)
    assert reason_of_end(end) == reason
    assert "sk-leak" not in str(end)
    assert text_of(events) == text
    if text:
        assert next(event for event in events if event.HasField("message_completed")).message_completed.incomplete


async def test_the_conversation_goes_on_after_a_failure_and_remembers_the_cut_text(
    stubs: Stubs, upstream: ModelServer
) -> None:
    upstream.enqueue(RawAnswer([text_frame("I was going to")]))
    failed = await run_agent(stubs, run_spec("first"))
    events = await run_agent(stubs, run_spec("second", failed[0].conversation_id))
    assert text_of(events) == "fine"
    asked = upstream.requests[-1].body["messages"]
    assert [message["role"] for message in asked] == ["system", "user", "assistant", "user"]
    assert asked[2]["content"] == "I was going to"


async def test_text_that_came_in_pieces_is_byte_for_byte_the_same(stubs: Stubs, upstream: ModelServer) -> None:
    said = "Zoë says 🙂 \u202eabc\x00 done"
    pieces = b"".join([*(text_frame(letter) for letter in said), finish_frame(), DONE])
    upstream.enqueue(RawAnswer([pieces[n : n + 7] for n in range(0, len(pieces), 7)]))
    events = await run_agent(stubs, run_spec("hello"))
    check_run(events)
    assert text_of(events) == said.replace("\x00", "\ufffd")
