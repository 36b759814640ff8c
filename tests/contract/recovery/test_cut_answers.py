"""A run whose answer has to fit a schema, on every engine: cut after any event it has one chance to mend a bad one."""

import json
from collections.abc import AsyncGenerator

import pytest
from contract.recovery.recovering import an_engine, history_of
from contract.recovery.test_cut_runs import STARTED, cut_run
from contract.storage.conftest import OpenStore
from contract.storage.test_repositories import spec
from parley.v1 import run_pb2
from parley_server.domain.content import text_of
from parley_server.domain.context import RequestContext
from parley_server.domain.run_event import OUTPUT_INVALID, ItemEvent, MessageCompleted, TextDelta, UsageUpdated, Warned
from parley_server.domain.usage import Usage
from parley_server.llm.model_service import ModelChunk, ModelRequest, UserMessage
from parley_server.rpc.mapping.errors import read_run_error
from unit.agents.scripted_model import say

SCHEMA = json.dumps({"type": "object", "required": ["a"]})
OBJECTION = "it does not fit the schema: the whole: 'a' is a required property"
PARTS: list[ItemEvent] = [
    STARTED,
    (TextDelta("{"), "bad"),
    (TextDelta("}"), "bad"),
    (MessageCompleted("{}"), "bad"),
    (UsageUpdated(Usage(output_tokens=1, model_calls=1)), ""),
    (Warned(OUTPUT_INVALID, OBJECTION), "bad"),
    (TextDelta('{"a"'), "good"),
]
# What the agent hands over as one becomes durable as one.
CUTS = (0, 1, 2, 3, 6, 7)


class Pupil:
    """Says `{}`, and once that was objected to, what it was told to say then."""

    def __init__(self, mended: str) -> None:
        self._mended = mended
        self.requests: list[ModelRequest] = []

    async def stream(self, context: RequestContext, request: ModelRequest) -> AsyncGenerator[ModelChunk]:  # noqa: ARG002
        self.requests.append(request)
        last = request.messages[-1]
        assert isinstance(last, UserMessage)
        is_objected = OBJECTION in text_of(last.parts)
        for chunk in say(self._mended if is_objected else "{}"):
            assert not isinstance(chunk, BaseException)
            yield chunk

    async def aclose(self) -> None:
        """Nothing to close."""


@pytest.mark.parametrize(("mended", "output_json"), [('{"a": 1}', '{"a":1}'), ("[]", "")])
async def test_a_bad_answer_has_one_chance_wherever_the_run_was_cut(
    mended: str, output_json: str, open_same_store: OpenStore, ann: RequestContext
) -> None:
    async with open_same_store() as store:
        runs = [await cut_run(store, ann, PARTS[:cut], spec(output_schema_json=SCHEMA)) for cut in CUTS]
    pupil = Pupil(mended)
    async with open_same_store() as store, an_engine(store, pupil, []) as engine:
        await engine.recover()
        histories = [await history_of(store, ann, run.run_id) for run in runs]
        stored = [await store.for_user(ann).runs.get(run.run_id) for run in runs]
    for cut, events, run in zip(CUTS, histories, stored, strict=True):
        end = events[-1].run_finished
        assert [event.warning.reason for event in events if event.HasField("warning")] == [OUTPUT_INVALID], cut
        texts = [event.message_completed.text for event in events if event.HasField("message_completed")]
        assert (texts, end.usage.model_calls) == (["{}", mended], 2), cut
        assert (run.output_text, run.output_json) == (mended, output_json), cut
        if output_json:
            assert end.state == run_pb2.RUN_STATE_SUCCEEDED, cut
        else:
            assert read_run_error(end.error).reason == "OUTPUT_INVALID", cut
    # The model that mends reads the same, whoever asks it.
    asked = {request.messages[1:] for request in pupil.requests if len(request.messages) > 2}
    assert len(asked) == 1
