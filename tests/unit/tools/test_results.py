"""What the model is told a call came to."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from parley_server.domain.tool import ToolCall
from parley_server.tools.errors import FieldProblem, InvalidArgumentsError, ToolError
from parley_server.tools.json_value import NotJsonError
from parley_server.tools.results import MAX_INLINE_BYTES, answer, failed_result

CALL = ToolCall("call_1", "some_tool", "{}")


def test_a_result_is_compact_json() -> None:
    told = answer({"value": "ä", "items": (1, 2.5, None, True)})
    assert told.result_json == '{"ok":true,"result":{"value":"ä","items":[1,2.5,null,true]}}'
    assert not told.truncated


@pytest.mark.parametrize("char", ["a", '"', "ä", "😀", "\n", "\x01", "\\"])
def test_a_long_result_keeps_both_ends_inside_valid_json(char: str) -> None:
    told = answer({"text": char * 50_000, "last": "the end"})
    assert told.truncated
    assert len(told.result_json.encode()) <= MAX_INLINE_BYTES
    parsed = json.loads(told.result_json)
    assert parsed["ok"] is True
    assert parsed["truncated"] is True
    assert json.loads(told.whole_json) == {"text": char * 50_000, "last": "the end"}
    head, tail = parsed["result"]["head"], parsed["result"]["tail"]
    assert told.whole_json.startswith(head)
    assert told.whole_json.endswith(tail)
    assert (parsed["result_id"], parsed["next_offset"]) == (told.result_id, len(head))
    assert parsed["total_chars"] == len(told.whole_json)


@given(st.text(max_size=20), st.integers(0, 8000))
def test_no_result_is_above_the_limit(text: str, times: int) -> None:
    told = answer(text * times)
    assert len(told.result_json.encode()) <= MAX_INLINE_BYTES
    assert json.loads(told.result_json)["ok"] is True


def test_nul_and_lone_surrogates_are_replaced() -> None:
    assert json.loads(answer({"a\x00": "b\x00\ud800c"}).result_json)["result"] == {"a\ufffd": "b\ufffd\ufffdc"}


def test_integers_count_by_their_digits() -> None:
    with pytest.raises(ToolError) as refused:
        answer([10**4000] * 2000)
    assert refused.value.code == "result_too_large"


@pytest.mark.parametrize("value", ["😀" * 1_100_000, ["\x01" * 700_000]])
def test_a_result_that_no_store_takes_whole_is_too_large(value: object) -> None:
    with pytest.raises(ToolError) as refused:
        answer(value)
    assert refused.value.code == "result_too_large"


def test_a_text_is_told_as_it_was_edited() -> None:
    told = answer({"a": "my secret", "secret": [12345]}, lambda text: text.replace("secret", "word"))
    assert json.loads(told.result_json)["result"] == {"a": "my word", "word": [12345]}


def cycle() -> object:
    ring: list[object] = []
    ring.append(ring)
    return ring


def deep() -> object:
    nested: object = "core"
    for _ in range(5000):
        nested = {"a": nested}
    return nested


@pytest.mark.parametrize(
    "value",
    [float("nan"), float("inf"), [1, -float("inf")], b"bytes", {"a": b""}, cycle(), deep(), {1: 2}, {1, 2}, object()],
)
def test_what_is_not_json_is_refused(value: object) -> None:
    with pytest.raises(NotJsonError):
        answer(value)


def test_an_integer_beyond_pythons_digits_is_refused() -> None:
    with pytest.raises(ValueError, match="digits"):
        answer(10**5000)


def test_a_small_value_that_unfolds_without_end_is_refused() -> None:
    value: object = "x"
    for _ in range(20):
        value = [value] * 20
    with pytest.raises(ToolError) as caught:
        answer(value)
    assert caught.value.code == "result_too_large"


def test_an_error_says_what_to_do() -> None:
    result = failed_result(CALL, ToolError("rate_limited", "Too many requests.", hint="Wait.", retryable=True))
    assert json.loads(result.result_json) == {
        "ok": False,
        "error": {"code": "rate_limited", "message": "Too many requests.", "retryable": True, "hint": "Wait."},
    }
    assert (result.error_code, result.error_message) == ("rate_limited", "Too many requests.")


@pytest.mark.parametrize("char", ["x", "😀", "\x01", '"'])
def test_the_longest_error_is_below_the_limit(char: str) -> None:
    endless = char * 100_000
    error = InvalidArgumentsError([FieldProblem(endless, endless)] * 50)
    error.code = error.message = error.hint = endless
    assert len(failed_result(CALL, error).result_json.encode()) <= MAX_INLINE_BYTES
