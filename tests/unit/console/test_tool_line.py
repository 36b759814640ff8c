"""A tool call in one line."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from parley.v1.run_event_pb2 import ToolCallFinished, ToolCallProgress
from parley.v1.tool_pb2 import TOOL_CALL_STATUS_OK, TOOL_CALL_STATUS_TIMED_OUT, TOOL_CALL_STATUS_UNKNOWN_OUTCOME
from parley_console.tool_line import call_text, progress_text, result_text


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ('{"expression": "17 * 23"}', 'calculator(expression="17 * 23")'),
        ('{"a": 1, "b": [true, null]}', "calculator(a=1, b=[true, null])"),
        ('{"city": "Zürich"}', 'calculator(city="Zürich")'),
        ("{}", "calculator()"),
        ("not json", "calculator()"),
    ],
)
def test_a_call_is_written_as_a_programmer_would(arguments: str, text: str) -> None:
    assert call_text("calculator", arguments) == text


@pytest.mark.parametrize(
    ("result", "text"),
    [
        ('{"ok":true,"result":{"expression":"17 * 23","value":"391"}}', "391"),
        ('{"ok":true,"result":{"expression":"else","value":"391"}}', '{"expression": "else", "value": "391"}'),
        ('{"value": 391}', "391"),
        ('"two\\nlines"', "two lines"),
        ("[1, 2]", "[1, 2]"),
        ('{"expression": "17 * 23"}', '{"expression": "17 * 23"}'),
        ("cut {", "cut {"),
        ("", "OK"),
    ],
)
def test_a_result_is_what_it_adds_to_the_call(result: str, text: str) -> None:
    finished = ToolCallFinished(status=TOOL_CALL_STATUS_OK, result_json=result)
    assert result_text(finished, '{"expression": "17 * 23"}') == text


def test_a_failure_is_its_status_and_message() -> None:
    timed_out = ToolCallFinished(status=TOOL_CALL_STATUS_TIMED_OUT, error_message="after 5 s")
    assert result_text(timed_out, "{}") == "TIMED_OUT: after 5 s"
    assert result_text(ToolCallFinished(status=TOOL_CALL_STATUS_UNKNOWN_OUTCOME), "{}") == "UNKNOWN_OUTCOME"
    from_the_future = ToolCallFinished.FromString(b"\x18\x63")
    assert result_text(from_the_future, "{}") == "99"


@given(st.text(), st.text(), st.text())
def test_it_is_always_one_line_of_bounded_length(name: str, argument: str, result: str) -> None:
    arguments_json = json.dumps({"argument": argument}, ensure_ascii=False)
    finished = ToolCallFinished(status=TOOL_CALL_STATUS_OK, result_json=json.dumps(result))
    for line in (call_text(name, arguments_json), result_text(finished, arguments_json)):
        assert "\n" not in line
        assert len(line) <= 64 + 102
    assert call_text(name, arguments_json).isprintable()


@pytest.mark.parametrize(
    ("progress", "text"),
    [
        (ToolCallProgress(message="page 3\nof 5", fraction=0.6), "60% page 3 of 5"),
        (ToolCallProgress(message="page 3"), "page 3"),
        (ToolCallProgress(fraction=0), "0%"),
        (ToolCallProgress(), ""),
    ],
)
def test_progress_is_the_part_done_and_the_tools_word_on_it(progress: ToolCallProgress, text: str) -> None:
    assert progress_text(progress) == text
