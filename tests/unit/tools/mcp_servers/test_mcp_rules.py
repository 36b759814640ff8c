"""What is made of what MCP servers say: names, pins, answers. It may be anything."""

import asyncio
import base64
import re
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mcp_types import CallToolResult, ElicitRequestFormParams, ElicitRequestURLParams, ElicitResult, Tool
from parley_server.tools.errors import ConfirmationNeededError
from parley_server.tools.mcp.catalog import Catalog
from parley_server.tools.mcp.content import error_of, result_of
from parley_server.tools.mcp.listed_tool import ListedTool, read_tool_aside
from parley_server.tools.mcp.mcp_settings import McpServerSettings
from parley_server.tools.mcp.questions import Questions
from parley_server.tools.mcp.resumption import Resumption
from parley_server.tools.mcp.tool_spec import spec_of
from parley_server.tools.results import answer

NAMES = st.sampled_from(["a", "b", "c"])
TOOLS = st.dictionaries(NAMES, st.sampled_from(["one", "two"]))
TEXTS = st.text(max_size=20)


def tool(name: str, description: str = "") -> ListedTool:
    return ListedTool(name=name, description=description, input_schema={"type": "object"})


def result(*content: dict[str, object], **more: object) -> CallToolResult:
    return CallToolResult.model_validate({"content": content, **more})


@given(st.text(min_size=1), st.text(min_size=1))
def test_any_name_becomes_one_that_a_model_may_write(first: str, second: str) -> None:
    server = McpServerSettings(command="x")
    one, other = [spec_of("a_server", server, tool(name)).name for name in (first, second)]
    assert re.fullmatch(r"a_server_[A-Za-z0-9_-]{1,55}", one)
    if len(first) > 60 and len(second) > 60 and first != second:
        assert one != other


@settings(max_examples=30)
@given(st.lists(TOOLS, max_size=6))
def test_what_is_pinned_is_what_was_seen_first_over_restarts_too(seen: list[dict[str, str]]) -> None:
    first: dict[str, str] = {}
    with TemporaryDirectory() as folder:
        for listed in seen:
            catalog = Catalog(Path(folder, "mcp", "raw.json"), pinned=True)
            catalog.see([tool(name, description) for name, description in listed.items()])
            first = listed | first
            usable = {each.name: each.description for each in catalog.usable}
            assert usable == {name: text for name, text in listed.items() if first[name] == text}
            assert {each.name for each in catalog.withheld} == listed.keys() - usable.keys()


def test_a_changed_tool_may_take_the_place_of_the_former_one_where_nothing_is_pinned(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path / "raw.json", pinned=False)
    for description in ("one", "two"):
        catalog.see([tool("a", description)])
        assert [each.description for each in catalog.usable] == [description]


@pytest.mark.parametrize(
    ("content", "more", "told"),
    [
        ([], {}, {"text": ""}),
        ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], {}, {"text": "a\nb"}),
        ([{"type": "text", "text": '{"a": 1}'}], {"structuredContent": {"a": 1}}, {"structured": {"a": 1}}),
        ([{"type": "text", "text": "b"}], {"structuredContent": {"a": "b"}}, {"structured": {"a": "b"}}),
        ([{"type": "text", "text": "x"}], {"structuredContent": {"a": 1}}, {"structured": {"a": 1}, "text": "x"}),
        (
            [{"type": "audio", "data": base64.b64encode(b"12345").decode(), "mimeType": "audio/wav"}],
            {},
            {"parts": [{"type": "audio", "media_type": "audio/wav", "size_bytes": 5, "omitted": True}]},
        ),
        (
            [{"type": "resource", "resource": {"uri": "file:///a", "text": "hello"}}],
            {},
            {"parts": [{"type": "resource", "uri": "file:///a", "text": "hello"}]},
        ),
    ],
)
def test_an_answer_is_told_as_what_it_is(
    content: list[dict[str, object]], more: dict[str, object], told: dict[str, object]
) -> None:
    assert result_of(result(*content, **more)) == told


@settings(max_examples=30)
@given(st.lists(st.builds(lambda text: {"type": "text", "text": text}, TEXTS)), st.recursive(TEXTS, st.lists))
def test_any_answer_can_be_told_to_a_model(content: list[dict[str, object]], structured: object) -> None:
    assert answer(result_of(result(*content, structuredContent=structured))).result_json


def test_an_error_is_told_in_the_words_of_the_tool() -> None:
    assert error_of(result({"type": "text", "text": "No such book."}, isError=True)).message == "No such book."
    assert "did not say why" in error_of(result(isError=True)).message
    assert len(error_of(result({"type": "text", "text": "x" * 10_000}, isError=True)).message) == 1000


BOOLEAN = {"type": "boolean"}


@pytest.mark.parametrize(
    ("schema", "content"),
    [
        ({"type": "object", "properties": {}}, {}),
        ({"type": "object", "properties": {"sure": BOOLEAN}}, {"sure": True}),
        ({"type": "object", "properties": {"sure": BOOLEAN, "really": BOOLEAN}}, None),
        ({"type": "object", "properties": {"name": {"type": "string"}}}, None),
        ({"type": "object", "properties": 3}, None),
    ],
)
def test_only_a_question_that_yes_answers_is_answered_with_yes(
    schema: dict[str, object], content: dict[str, bool] | None
) -> None:
    asked = ElicitRequestFormParams(message="Sure?", requested_schema=schema)
    for is_approved in (True, False):
        questions = Questions(is_approved=is_approved)
        answered = questions.answer(asked)
        is_confirmed = is_approved and content is not None
        assert (answered.action, answered.content) == (("accept", content) if is_confirmed else ("decline", None))
        assert questions.told() == {"confirmed_questions" if is_confirmed else "declined_questions": ["Sure?"]}


def test_several_questions_that_yes_answers_are_asked_as_one() -> None:
    sure = {"type": "object", "properties": {"sure": BOOLEAN}}
    asked = {key: ElicitRequestFormParams(message=f"{key}?", requested_schema=sure) for key in ("a", "b")}
    with pytest.raises(ConfirmationNeededError) as needed:
        Questions().answers(asked, "state")
    assert needed.value.question == "a?\nb?"
    resumed = Resumption.model_validate_json(needed.value.confirmation.state)
    yes = ElicitResult(action="accept", content={"sure": True})
    assert resumed.fields == {"input_responses": {"a": yes, "b": yes}, "request_state": "state"}
    # Whoever has approved the call and may be taken to confirm it is not asked.
    approved = Questions(is_approved=True)
    assert approved.answers(asked, "state") == resumed
    assert approved.told() == {"confirmed_questions": ["a?", "b?"]}


def test_a_question_that_leads_to_a_page_is_declined() -> None:
    asked = ElicitRequestURLParams(message="Sign in.", url="https://example.com", elicitation_id="1")
    assert Questions(is_approved=True).answer(asked).action == "decline"


async def test_nobody_waits_while_a_large_schema_is_checked() -> None:
    schema = {"type": "object", "properties": {f"p{n}": {"type": "string"} for n in range(1500)}}
    reading = asyncio.create_task(read_tool_aside(Tool(name="large", input_schema=schema)))
    turns = 0
    while not reading.done():
        await asyncio.sleep(0.001)
        turns += 1
    assert turns > 10
    assert (await reading).input_schema == schema
