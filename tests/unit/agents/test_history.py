"""What a conversation holds becomes what a model is sent, every call with its result."""

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from parley_server.agents.history import model_messages, step_messages
from parley_server.domain.content import ImagePart, TextPart, text_of
from parley_server.domain.message import AssistantItem, Item, Message, ToolCallItem, UserItem
from parley_server.domain.principal import PrincipalKind
from parley_server.domain.resolution import CallOutcome, Resolution
from parley_server.domain.tool import ToolCall, ToolCallStatus, ToolEffect, ToolResult
from parley_server.llm.model_service import AssistantMessage, ModelMessage, ToolMessage, UserMessage
from parley_server.tools.errors import UnknownOutcomeError
from parley_server.tools.results import failed_result


def a_message(item: Item, number: int = 0, *, run_id: str = "run_1", incomplete: bool = False) -> Message:
    return Message(f"item_{number}", "conv_1", run_id, datetime(2026, 11, 22, tzinfo=UTC), item, incomplete)


def a_call(number: int, name: str = "calculator", arguments_json: str = '{"n":1}') -> ToolCallItem:
    return ToolCallItem(
        f"call_{number}", name, arguments_json, ToolEffect.READ, ToolCallStatus.OK, f'{{"ok":true,"result":{number}}}'
    )


def sent(*items: Item) -> tuple[ModelMessage, ...]:
    return model_messages(a_message(item, number) for number, item in enumerate(items))


def test_a_conversation_with_tools() -> None:
    parts = (TextPart("17 * 23?"), ImagePart("image/png", uri="https://example.org/a.png"))
    messages = sent(UserItem(parts), AssistantItem("Let me see."), a_call(1), a_call(2), AssistantItem("391"))
    calls = (ToolCall("call_1", "calculator", '{"n":1}'), ToolCall("call_2", "calculator", '{"n":1}'))
    assert messages == (
        UserMessage(parts),
        AssistantMessage("Let me see.", calls),
        ToolMessage("call_1", '{"ok":true,"result":1}'),
        ToolMessage("call_2", '{"ok":true,"result":2}'),
        AssistantMessage("391"),
    )


def test_what_the_user_said_of_a_call_in_doubt_goes_along() -> None:
    said = Resolution(
        CallOutcome.DID_NOT_HAPPEN, 'no "mail"', PrincipalKind.USER, "ann", datetime(2026, 11, 23, tzinfo=UTC)
    )
    result = failed_result(ToolCall("call_1", "send", "{}"), UnknownOutcomeError())
    item = ToolCallItem("call_1", "send", "{}", ToolEffect.WRITE, result.status, result.result_json)
    _, told = model_messages([replace(a_message(item), resolution=said)])
    assert isinstance(told, ToolMessage)
    assert json.loads(told.content) == {
        **json.loads(result.result_json),
        "resolved": {"outcome": "did_not_happen", "said_by": "user", "note": 'no "mail"'},
    }


def test_reasoning_stays_with_the_answer_it_led_to() -> None:
    answer, *_ = sent(AssistantItem("So:", reasoning_text="Hm."), a_call(1))
    assert isinstance(answer, AssistantMessage)
    assert (answer.text, answer.reasoning, len(answer.tool_calls)) == ("So:", "Hm.", 1)


@pytest.mark.parametrize("text", ["[]", ""])
def test_an_objection_follows_its_answer_and_asks_for_another(text: str) -> None:
    *answer, objection, mended = sent(AssistantItem(text, objection="no object"), AssistantItem("{}"))
    assert answer == ([AssistantMessage(text)] if text else [])
    assert isinstance(objection, UserMessage)
    assert "no object" in text_of(objection.parts)
    assert mended == AssistantMessage("{}")


def test_calls_without_text_before_them_stand_alone() -> None:
    messages = sent(UserItem((TextPart("hi"),)), a_call(1))
    assert messages[1] == AssistantMessage("", (ToolCall("call_1", "calculator", '{"n":1}'),))


def test_calls_of_another_run_are_another_step() -> None:
    messages = model_messages([a_message(a_call(1), 1, run_id="run_1"), a_message(a_call(2), 2, run_id="run_2")])
    assert [type(message) for message in messages] == [AssistantMessage, ToolMessage] * 2


def test_cut_text_is_kept_and_empty_text_is_not() -> None:
    cut = a_message(AssistantItem("The answer is"), incomplete=True)
    empty = a_message(AssistantItem(""), incomplete=True)
    assert model_messages([cut, empty]) == (AssistantMessage("The answer is"),)


def test_a_refusal_is_what_the_assistant_said() -> None:
    assert sent(AssistantItem("", refusal="I won't.")) == (AssistantMessage("I won't."),)


def test_names_and_arguments_no_server_takes_are_mended() -> None:
    [answer, _] = sent(a_call(1, "cal\u0441ulator \u00fc" + "x" * 100, "not json"))
    assert isinstance(answer, AssistantMessage)
    [call] = answer.tool_calls
    assert call.name == "cal_ulator__" + "x" * 52
    assert call.arguments_json == "{}"


def test_a_step_of_this_run_reads_the_same_as_from_the_history() -> None:
    call = ToolCall("call_1", "calculator", '{"n":1}')
    result = ToolResult("call_1", "calculator", ToolCallStatus.OK, '{"ok":true,"result":1}')
    assert step_messages("So:", [call], [result]) == sent(AssistantItem("So:"), a_call(1))


ITEMS = st.lists(
    st.tuples(
        st.one_of(
            st.text(max_size=3).map(lambda text: UserItem((TextPart(text),))),
            st.builds(AssistantItem, st.text(max_size=3), refusal=st.text(max_size=3)),
            st.builds(a_call, st.integers(0, 10**6), st.text(max_size=5), st.text(max_size=5)),
        ),
        st.sampled_from(["run_1", "run_2"]),
    )
)


@given(ITEMS)
def test_every_call_is_followed_by_its_result_whatever_the_history(items: list[tuple[Item, str]]) -> None:
    messages = model_messages(a_message(item, number, run_id=run) for number, (item, run) in enumerate(items))
    waiting: list[str] = []
    for message in messages:
        if isinstance(message, ToolMessage):
            assert message.call_id == waiting.pop(0)
            continue
        assert waiting == []
        if isinstance(message, AssistantMessage):
            assert message.text or message.tool_calls
            waiting = [call.call_id for call in message.tool_calls]
    assert waiting == []
    calls = [item.call_id for item, _ in items if isinstance(item, ToolCallItem)]
    assert [message.call_id for message in messages if isinstance(message, ToolMessage)] == calls
    users = [item.parts for item, _ in items if isinstance(item, UserItem)]
    assert [message.parts for message in messages if isinstance(message, UserMessage)] == users
