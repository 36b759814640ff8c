"""Chunk building: what servers really send, and that the cut of the reads never matters."""

import json
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_server import DONE, delta_frame, finish_frame, frame, text_frame, usage_frame
from parley_server.domain.errors import Reason
from parley_server.domain.tool import ToolCall
from parley_server.domain.usage import Usage
from parley_server.llm.chunk_builder import ChunkBuilder
from parley_server.llm.model_service import (
    FinishChunk,
    FinishReason,
    ModelChunk,
    ModelError,
    ReasoningChunk,
    RefusalChunk,
    TextChunk,
)
from parley_server.llm.sse import SseSplitter
from parley_server.llm.tool_call_builder import MAX_TOOL_CALLS

END = finish_frame() + DONE
NO_USAGE = Usage(model_calls=1)


def build(*reads: bytes) -> list[ModelChunk]:
    numbers = count(1)
    splitter, builder = SseSplitter(), ChunkBuilder(lambda: f"made_{next(numbers)}")
    chunks = [chunk for read in reads for chunk in builder.feed(splitter.feed(read))]
    chunks += builder.feed(splitter.finish())
    return [*chunks, builder.finish()]


def joined(chunks: list[ModelChunk]) -> tuple[str, str, str, FinishChunk]:
    """Text, reasoning, refusal and the finish, which must be the last chunk and the only one."""
    *parts, finish = chunks
    assert isinstance(finish, FinishChunk)
    assert not any(isinstance(part, FinishChunk) for part in parts)
    text = "".join(part.text for part in parts if isinstance(part, TextChunk))
    reasoning = "".join(part.text for part in parts if isinstance(part, ReasoningChunk))
    refusal = "".join(part.text for part in parts if isinstance(part, RefusalChunk))
    return text, reasoning, refusal, finish


def outcome(*reads: bytes) -> tuple[str, str, str, FinishChunk] | Reason:
    try:
        return joined(build(*reads))
    except ModelError as error:
        return error.reason


def calls_of(*deltas: list[dict[str, object]], finish: str = "tool_calls") -> list[tuple[str, str, str]]:
    stream = b"".join(delta_frame(tool_calls=delta) for delta in deltas) + finish_frame(finish) + DONE
    finished = joined(build(stream))[3]
    return [(call.call_id, call.name, call.arguments_json) for call in finished.tool_calls]


def call(
    index: int | None = None, call_id: str | None = None, name: str | None = None, arguments: object = None
) -> dict[str, object]:
    delta: dict[str, object] = {"function": {"name": name, "arguments": arguments}}
    if index is not None:
        delta["index"] = index
    if call_id is not None:
        delta["id"] = call_id
    return delta


def failure_of(*reads: bytes) -> ModelError:
    with pytest.raises(ModelError) as raised:
        build(*reads)
    return raised.value


def test_the_text_of_one_read_is_one_chunk() -> None:
    chunks = build(text_frame("Hel") + text_frame("lo"), text_frame("!") + END)
    assert chunks == [TextChunk("Hello"), TextChunk("!"), FinishChunk(FinishReason.STOP, (), NO_USAGE, False)]


@pytest.mark.parametrize(
    ("deltas", "expected"),
    [
        pytest.param(
            [
                [call(0, "a", "f", "")],
                [call(1, "b", "g", "")],
                [call(0, arguments='{"x":')],
                [call(1, arguments='{"y":')],
                [call(0, arguments="1}")],
                [call(1, arguments="2}")],
            ],
            [("a", "f", '{"x":1}'), ("b", "g", '{"y":2}')],
            id="parallel, interleaved",
        ),
        pytest.param(
            [[call(None, "a", "f", '{"x"')], [call(None, None, None, ":1}")]], [("a", "f", '{"x":1}')], id="no index"
        ),
        pytest.param(
            [[call(None, "a", "f", "{}"), call(None, "b", "g", "{}")]],
            [("a", "f", "{}"), ("b", "g", "{}")],
            id="no index, two calls in one chunk",
        ),
        pytest.param(
            [
                [call(None, "a", "f", "{")],
                [call(None, arguments="}")],
                [call(None, "b", "g", "{")],
                [call(None, arguments="}")],
            ],
            [("a", "f", "{}"), ("b", "g", "{}")],
            id="no index, two calls, tails without id",
        ),
        pytest.param(
            [[call(0, "a", "f", "{")], [call(0, arguments="}")], [call(0, "b", "f", '{"x":1}')]],
            [("a", "f", "{}"), ("b", "f", '{"x":1}')],
            id="every index is 0",
        ),
        pytest.param([[call(1, "a", "f", "{")], [call(1, arguments="}")]], [("a", "f", "{}")], id="first index is 1"),
        pytest.param(
            [[call(0, "a", "f", "{}")], [call(0, "b", "g", '{"x"')], [call(1, arguments=":1}")]],
            [("a", "f", "{}"), ("b", "g", '{"x":1}')],
            id="head on one index, tail on the next",
        ),
        pytest.param(
            [[call(0, "a", "add", '{"x"')], [call(0, "a", "add", ":{}")], [call(0, "a", "add", "}")]],
            [("a", "add", '{"x":{}}')],
            id="id and name on every delta",
        ),
        pytest.param(
            [[call(0, "a", "f", "{")], [call(0, "", "", "}")]], [("a", "f", "{}")], id="empty id and name later"
        ),
        pytest.param(
            [[call(0, None, "f", "{")], [call(0, arguments="}")], [call(1, None, "g", "{}")]],
            [("made_1", "f", "{}"), ("made_2", "g", "{}")],
            id="no ids at all",
        ),
        pytest.param(
            [[call(None, None, "f", '{"x":1}')], [call(None, None, "f", '{"x":2}')]],
            [("made_1", "f", '{"x":1}'), ("made_2", "f", '{"x":2}')],
            id="neither ids nor indexes",
        ),
        pytest.param([[call(0, "a", "f", {"x": [1]})]], [("a", "f", '{"x": [1]}')], id="arguments as an object"),
        pytest.param([[call(0, "a", "f", "")]], [("a", "f", "{}")], id="no arguments: empty"),
        pytest.param([[call(0, "a", "f", None)]], [("a", "f", "{}")], id="no arguments: null"),
        pytest.param(
            [[call(0, "a", "f", '{"x"')], [call(0, arguments=":1}")], [call(0, "a", "f", '{"x":1}')]],
            [("a", "f", '{"x":1}')],
            id="the whole call once more at the end",
        ),
        pytest.param(
            [[call(0, "a", None, '{"x":1}')], [call(0, "a", "f", "")]], [("a", "f", '{"x":1}')], id="name last"
        ),
        pytest.param(
            [[call(0, "a", "f", '{"x":1}')], [call(1, "a", "g", '{"y":2}')]],
            [("a", "f", '{"x":1}'), ("a_d2", "g", '{"y":2}')],
            id="one id for two tools",
        ),
        pytest.param(
            [[call(0, "a", "f", '{"x":1}')], [call(1, "a", "f", '{"x":2}')]],
            [("a", "f", '{"x":1}'), ("a_d2", "f", '{"x":2}')],
            id="one id for two calls of a tool",
        ),
        pytest.param([[call(0, 7, "f", "{}")]], [("7", "f", "{}")], id="a number for an id"),  # type: ignore[arg-type]  # the quirk
        pytest.param([[call(0, "a", "f", "[1]")]], [("a", "f", "[1]")], id="arguments that are no object"),
        pytest.param([[call(0, "a", "f", '{"x"')]], [("a", "f", '{"x"')], id="arguments that do not parse"),
        pytest.param([[call(0, "a", "f", '"\ud83d"')]], [("a", "f", '"\ufffd"')], id="half a character"),
        pytest.param([[call(0, "a", "f", "{}")], [call(1)]], [("a", "f", "{}")], id="an empty call"),
    ],
)
def test_tool_calls_come_out_whole(deltas: list[list[dict[str, object]]], expected: list[tuple[str, str, str]]) -> None:
    assert calls_of(*deltas) == expected
    assert calls_of(*deltas, finish="stop") == expected


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("stop", FinishReason.STOP),
        ("end_turn", FinishReason.STOP),
        ("eos", FinishReason.STOP),
        ("tool_calls", FinishReason.STOP),
        ("function_call", FinishReason.STOP),
        ("length", FinishReason.LENGTH),
        ("MAX_TOKENS", FinishReason.LENGTH),
        ("content_filter", FinishReason.CONTENT_FILTER),
        ("refusal", FinishReason.REFUSAL),
    ],
)
def test_finish_words_without_calls(word: str, reason: FinishReason) -> None:
    assert joined(build(text_frame("x") + finish_frame(word) + DONE))[3].reason is reason


@pytest.mark.parametrize("word", ["stop", "length", "function_call", "tool_calls", "content_filter"])
def test_whole_calls_finish_as_tool_calls_whatever_the_word(word: str) -> None:
    finish = joined(build(delta_frame(tool_calls=[call(0, "a", "f", "{}")]) + finish_frame(word) + DONE))[3]
    assert finish == FinishChunk(FinishReason.TOOL_CALLS, (ToolCall("a", "f", "{}"),), NO_USAGE, False)


def test_a_call_that_the_length_limit_cut_was_never_made() -> None:
    whole, cut = call(0, "a", "f", "{}"), call(1, "b", "g", '{"x":')
    assert calls_of([cut], finish="length") == []
    assert calls_of([whole, cut], finish="length") == [("a", "f", "{}")]


def test_the_first_finish_reason_counts_and_an_empty_one_does_not() -> None:
    stream = delta_frame("", content="x") + finish_frame("length") + finish_frame("stop") + delta_frame() + DONE
    assert joined(build(stream))[3].reason is FinishReason.LENGTH


def test_a_refusal_is_told_from_text() -> None:
    chunks = build(delta_frame(refusal="I can") + delta_frame(refusal="not.") + END)
    assert chunks[0] == RefusalChunk("I cannot.")
    assert joined(chunks)[3].reason is FinishReason.REFUSAL


@pytest.mark.parametrize(
    "delta",
    [
        {"reasoning_content": "hm"},
        {"reasoning": "hm"},
        {"reasoning": "hm", "reasoning_content": "hm"},
        {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]},
        {"content": [{"type": "thinking", "thinking": "hm"}]},
    ],
)
def test_reasoning_is_read_once_under_each_of_its_names(delta: dict[str, object]) -> None:
    assert build(frame({"choices": [{"delta": delta}]}) + END)[0] == ReasoningChunk("hm")


def test_content_may_be_a_list() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert build(delta_frame(content=parts) + END)[0] == TextChunk("ab")


@pytest.mark.parametrize(
    "extra",
    [
        frame({"choices": None}),
        frame({"choices": []}),
        frame({"choices": [{"delta": None}]}),
        frame({"choices": [{"finish_reason": None}]}),
        frame({"choices": [{"delta": {"tool_calls": None}}]}),
        frame({"choices": [{"delta": {"tool_calls": []}}], "error": None}),
        frame({"choices": [], "prompt_filter_results": [{"x": 1}]}),
        b"data: \n\n",
        b": keep-alive\n\n",
        b'data: {"choices":[{"delta":{},"logprobs":NaN}]}\n\n',
    ],
)
def test_chunks_that_say_nothing_do_no_harm(extra: bytes) -> None:
    assert joined(build(extra + text_frame("x") + extra + END))[0] == "x"


def test_an_answer_that_was_not_streamed_is_taken() -> None:
    message = {"role": "assistant", "content": "Hi", "tool_calls": [call(None, "a", "f", "{}")]}
    body = {
        "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2},
    }
    text, _, _, finish = joined(build(json.dumps(body, indent=1).encode()))
    assert (text, finish.tool_calls) == ("Hi", (ToolCall("a", "f", "{}"),))
    assert finish.usage == Usage(input_tokens=3, output_tokens=2, model_calls=1)


def test_usage_is_the_last_one_with_its_details() -> None:
    early = usage_frame(prompt_tokens=9, completion_tokens=1)
    last = usage_frame(
        prompt_tokens=9,
        completion_tokens=5,
        prompt_tokens_details={"cached_tokens": 4},
        completion_tokens_details={"reasoning_tokens": 2},
    )
    expected = Usage(input_tokens=9, cached_input_tokens=4, output_tokens=5, reasoning_tokens=2, model_calls=1)
    assert joined(build(early + text_frame("x") + finish_frame() + last + DONE))[3].usage == expected


@pytest.mark.parametrize("usage", [{"prompt_tokens": None}, {"prompt_tokens": -1}, {"prompt_tokens": "7"}, [], "x"])
def test_counts_that_are_no_counts_are_zero(usage: object) -> None:
    assert joined(build(frame({"choices": [], "usage": usage}) + END))[3].usage == Usage(model_calls=1)


def test_usage_inside_the_choice_is_found() -> None:
    stream = frame({"choices": [{"delta": {}, "finish_reason": "stop", "usage": {"prompt_tokens": 2}}]})
    assert joined(build(stream + DONE))[3].usage.input_tokens == 2


def test_broken_characters_are_replaced() -> None:
    assert joined(build(b'data: {"choices":[{"delta":{"content":"a\xffb"}}]}\n\n' + END))[0] == "a\ufffdb"
    assert joined(build(b'data: {"choices":[{"delta":{"content":"a\\ud83d b"}}]}\n\n' + END))[0] == "a\ufffd b"
    assert joined(build(text_frame("a\x00b") + END))[0] == "a\ufffdb"


@pytest.mark.parametrize("stream", [b"", text_frame("x"), b": comment\n\n", DONE])
def test_an_end_without_finish_reason_is_incomplete(stream: bytes) -> None:
    assert failure_of(stream).reason == Reason.MODEL_STREAM_INCOMPLETE


@pytest.mark.parametrize(
    "stream",
    [
        frame({"error": {"message": "secret", "code": 500}}),
        frame({"error": "secret"}),
        frame({"object": "error", "message": "secret"}),
        frame({"choices": None, "error_message": "secret"}),
        frame({"choices": [{"delta": {"content": ""}, "finish_reason": "error"}]}),
        frame({"choices": [{"delta": {}, "error": {"message": "secret"}}]}),
        b'event: error\ndata: {"message": "secret"}\n\n',
        b'{"error": {"message": "secret"}}',
        b'{"error": {"message": "secret"}}\n\n',
        b"data: secret\n\n",
        b'data: {"choices": [\n\n',
        b"data: [1]\n\n",
        b"data: " + b"[" * 100_000 + b"\n\n",
        b'data: {"choices":' + b"9" * 5000 + b"}\n\n",
        delta_frame(tool_calls=[call(0, "a", None, '{"secret":1}')]) + finish_frame("tool_calls"),
    ],
)
def test_errors_and_garbage_in_the_stream(stream: bytes) -> None:
    failure = failure_of(stream + END)
    assert failure.reason == Reason.MODEL_RESPONSE_INVALID
    assert "secret" not in failure.message


def test_what_came_before_an_error_is_kept() -> None:
    builder, splitter = ChunkBuilder(), SseSplitter()
    assert builder.feed(splitter.feed(text_frame("kept") + b"data: {\n\n" + text_frame("lost"))) == [TextChunk("kept")]
    assert builder.is_over
    assert not builder.has_finish_reason


def test_too_many_calls_are_refused() -> None:
    deltas = [call(number, f"c{number}", "f", "{}") for number in range(MAX_TOOL_CALLS + 1)]
    assert len(calls_of(deltas[:-1])) == MAX_TOOL_CALLS
    assert failure_of(delta_frame(tool_calls=deltas) + END).reason == Reason.MODEL_RESPONSE_INVALID


TEXTS = st.text(max_size=8)
CALLS = st.lists(
    st.builds(
        call,
        st.none() | st.integers(0, 3),
        st.none() | st.sampled_from(["", "a", "b"]),
        st.none() | st.sampled_from(["", "f", "g"]),
        st.none() | st.sampled_from(["", "{", "}", "{}", '{"x":', "1}", "[]"]) | st.just({"x": 1}),
    ),
    max_size=3,
)
FRAMES = st.one_of(
    TEXTS.map(text_frame),
    TEXTS.map(lambda text: delta_frame(reasoning=text)),
    TEXTS.map(lambda text: delta_frame(refusal=text)),
    CALLS.map(lambda calls: delta_frame(tool_calls=calls)),
    st.just(usage_frame(prompt_tokens=3)),
    st.just(b": comment\n\n"),
)


@settings(deadline=None)
@given(st.data(), st.lists(FRAMES, max_size=12), st.sampled_from(["stop", "length", "tool_calls"]))
def test_any_cut_gives_the_same_answer(data: st.DataObject, frames: list[bytes], word: str) -> None:
    stream = b"".join(frames) + finish_frame(word) + DONE
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    reads = [stream[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert outcome(*reads) == outcome(stream)


FIELDS = (
    "choices delta message content tool_calls function arguments name id index usage error finish_reason text refusal"
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS.split()), inner, max_size=4),
    max_leaves=20,
)


@settings(deadline=None)
@given(st.lists(st.one_of(st.binary(max_size=40), JSON.map(frame), FRAMES), max_size=6))
def test_arbitrary_bytes_raise_only_model_errors(reads: list[bytes]) -> None:
    outcome(*reads)
