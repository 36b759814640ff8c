"""What a model is sent has exactly one result behind every call, whatever the conversation holds."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from parley_server.agents.history_repair import repaired
from parley_server.domain.content import TextPart
from parley_server.domain.tool import ToolCall
from parley_server.llm.model_service import AssistantMessage, ModelMessage, SystemMessage, ToolMessage, UserMessage

SYSTEM = SystemMessage("Be kind.")
USER = UserMessage((TextPart("hi"),))


def asks(*call_ids: str) -> AssistantMessage:
    return AssistantMessage("", tuple(ToolCall(call_id, "look", "{}") for call_id in call_ids))


def told(call_id: str, content: str = "{}") -> ToolMessage:
    return ToolMessage(call_id, content)


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [SYSTEM, USER],
        [SYSTEM, USER, asks("a", "b"), told("a"), told("b"), AssistantMessage("So."), USER],
        # An id that comes again in a later turn.
        [USER, asks("a"), told("a"), asks("a"), told("a")],
    ],
)
def test_what_is_whole_is_left_as_it_is(messages: list[ModelMessage]) -> None:
    assert repaired(messages) == (messages, False)


@pytest.mark.parametrize(
    ("messages", "mended"),
    [
        ([told("a"), SYSTEM, told("b"), USER, told("c")], [SYSTEM, USER]),
        ([asks("a"), told("b"), told("a")], [asks("a"), told("a")]),
        ([asks("a", "b"), told("b"), told("a")], [asks("a", "b"), told("a"), told("b")]),
        ([asks("a"), told("a", "1"), told("a", "2")], [asks("a"), told("a", "1")]),
        ([asks("a"), told("a"), USER, told("a")], [asks("a"), told("a"), USER]),
        ([AssistantMessage("So."), told("a")], [AssistantMessage("So.")]),
    ],
    ids=["no call at all", "another call's", "out of order", "twice", "too late", "after an answer"],
)
def test_results_without_their_call_are_moved_or_left_out(
    messages: list[ModelMessage], mended: list[ModelMessage]
) -> None:
    assert repaired(messages) == (mended, True)


def test_a_call_without_a_result_is_neither_done_nor_undone() -> None:
    mended, was_broken = repaired([asks("a", "b", "c"), told("b"), USER])
    assert was_broken
    assert [type(each).__name__ for each in mended] == ["AssistantMessage", *["ToolMessage"] * 3, "UserMessage"]
    answers = [each for each in mended if isinstance(each, ToolMessage)]
    assert [each.call_id for each in answers] == ["a", "b", "c"]
    assert answers[1] == told("b")
    error = json.loads(answers[0].content)["error"]
    assert (error["code"], error["retryable"]) == ("unknown_outcome", False)


MESSAGES = st.lists(
    st.one_of(
        st.just(USER),
        st.builds(lambda ids: asks(*ids), st.lists(st.sampled_from("abc"), max_size=3)),
        st.builds(told, st.sampled_from("abcd"), st.sampled_from(["1", "2"])),
    ),
    max_size=12,
)


@given(MESSAGES)
def test_any_history_comes_out_whole_and_stays_so(messages: list[ModelMessage]) -> None:
    mended, was_broken = repaired(messages)
    assert was_broken == (mended != messages)
    assert repaired(mended) == (mended, False)
    waiting: list[str] = []
    for message in mended:
        if isinstance(message, ToolMessage):
            assert message.call_id == waiting.pop(0)
        else:
            assert not waiting
            waiting = [call.call_id for call in message.tool_calls] if isinstance(message, AssistantMessage) else []
    assert not waiting
    without_results = [each for each in messages if not isinstance(each, ToolMessage)]
    assert [each for each in mended if not isinstance(each, ToolMessage)] == without_results
