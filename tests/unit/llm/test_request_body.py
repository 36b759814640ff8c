"""The request's body: what each kind of server is sent, what the settings change of it, and what cannot be written."""

import json
from dataclasses import replace

import pytest
from golden.request_bodies import CASES, FOLDER, golden_of
from parley_server.domain.content import FilePart, TextPart
from parley_server.domain.errors import Reason
from parley_server.domain.tool import ToolCall, ToolEffect, ToolSpec
from parley_server.llm.model_service import AssistantMessage, ModelError, ModelRequest, OutputSchema, UserMessage
from parley_server.llm.provider_profiles import ProviderProfile
from parley_server.llm.request_body import encode_request

UNKNOWN = ProviderProfile()
HELLO = ModelRequest("m", (UserMessage((TextPart("hello"),)),))
TOOL = ToolSpec("t", "", "{}", ToolEffect.READ)
CALLED = AssistantMessage("", (ToolCall("c", "t", "{}"),))


def body(request: ModelRequest, **profile: object) -> dict[str, object]:
    written: dict[str, object] = json.loads(encode_request(request, replace(UNKNOWN, **profile)))  # type: ignore[arg-type]  # fields vary
    return written


@pytest.mark.parametrize("case", CASES)
def test_every_kind_of_server_is_sent_what_its_golden_file_says(case: str) -> None:
    written = (FOLDER / f"{case}.json").read_text(encoding="utf-8")
    assert golden_of(case) == written, "python tests/golden/request_bodies.py writes the files anew"


def test_there_is_no_golden_file_too_many() -> None:
    assert {file.stem for file in FOLDER.glob("*.json")} == set(CASES)


def test_an_uploaded_file_cannot_be_sent() -> None:
    with pytest.raises(ModelError) as raised:
        body(ModelRequest("m", (UserMessage((FilePart("file_1"),)),)))
    assert raised.value.reason == Reason.MODEL_REQUEST_REJECTED


def test_a_model_that_calls_no_tools_is_offered_none() -> None:
    asked = replace(HELLO, tools=(TOOL,))
    assert "tools" in body(asked)
    assert "tools" not in body(asked, tools=False, parallel_tool_calls=False)
    assert body(asked, parallel_tool_calls=False)["parallel_tool_calls"] is False
    assert "parallel_tool_calls" not in body(HELLO, parallel_tool_calls=False)


@pytest.mark.parametrize(
    ("replay", "sent"), [("never", [None, None]), ("tool_calls", ["", None]), ("always", ["", "because"])]
)
def test_reasoning_is_sent_back_as_the_server_needs_it(replay: str, sent: list[str | None]) -> None:
    asked = replace(HELLO, messages=(CALLED, AssistantMessage("yes", (), "because")))
    messages = body(asked, replay_reasoning=replay, reasoning_field="reasoning")["messages"]
    assert isinstance(messages, list)
    assert [message.get("reasoning") for message in messages] == sent


@pytest.mark.parametrize("is_object", [True, False])
def test_a_schema_is_told_as_the_server_takes_it(*, is_object: bool) -> None:
    asked = replace(HELLO, output_schema=OutputSchema('{"type":"object"}', is_object, is_strict=False))
    formats = {kind: body(asked, response_format=kind).get("response_format") for kind in ("json_object", "none")}
    assert formats == {"json_object": {"type": "json_object"} if is_object else None, "none": None}
    told = body(asked, response_format="json_schema", strict_schemas=True).get("response_format")
    schema = {"name": "output", "schema": {"type": "object"}}
    assert told == ({"type": "json_schema", "json_schema": schema} if is_object else None)


@pytest.mark.parametrize("together", [True, False])
def test_a_schema_is_told_beside_tools_where_the_server_takes_both(*, together: bool) -> None:
    schema = OutputSchema('{"type":"object"}', is_object=True, is_strict=False)
    asked = replace(HELLO, output_schema=schema, tools=(TOOL,))
    profile = {"format_beside_tools": together, "response_format": "json_schema"}
    assert ("response_format" in body(asked, **profile)) == together
    assert "response_format" in body(asked, **profile, tools=False)
