"""Which turns give way to a summary: whole ones, the oldest, as many as needed, and never the last."""

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import chain

from hypothesis import given
from hypothesis import strategies as st
from parley_server.agents.compaction import Budget, Past, oldest
from parley_server.agents.history import model_messages, shown
from parley_server.agents.request_size import TokenCount, size_of
from parley_server.agents.summary import MAX_SUMMARY_BYTES, cut, question, without_summary
from parley_server.domain.content import ImagePart, TextPart, text_of
from parley_server.domain.message import AssistantItem, Item, Message, SummaryItem, ToolCallItem, UserItem
from parley_server.domain.tool import ToolCallStatus, ToolEffect
from parley_server.llm.model_service import AssistantMessage, UserMessage
from parley_server.llm.provider_profiles import ProviderProfile

PROFILE = ProviderProfile()


def user(text: str) -> Item:
    return UserItem((TextPart(text),))


def a_call(number: int) -> Item:
    return ToolCallItem(f"call_{number}", "read", "{}", ToolEffect.READ, ToolCallStatus.OK, '{"ok":true}')


def messages_of(items: Sequence[Item]) -> list[Message]:
    return [
        Message(f"item_{number}", "conv", f"run_{number // 3}", datetime(2026, 11, 22, tzinfo=UTC), item)
        for number, item in enumerate(items)
    ]


ANSWERS = st.one_of(st.text(max_size=40).map(AssistantItem), st.integers(0, 99).map(a_call))
TURNS = st.builds(lambda text, said: [user(text), *said], st.text(max_size=40), st.lists(ANSWERS, max_size=4))
CONVERSATIONS = st.lists(TURNS, min_size=1, max_size=8).map(lambda turns: messages_of(list(chain.from_iterable(turns))))


def last_input(messages: Sequence[Message]) -> int:
    return max(place for place, message in enumerate(messages) if isinstance(message.item, UserItem))


def compacted(messages: Sequence[Message], excess: int, name: str) -> tuple[list[Message], int]:
    """Compact as for a run that the last user's message began; return all messages, and how many turns went."""
    past = Past.of(messages, messages[last_input(messages)].message_id)
    count = oldest([size_of(model_messages(turn), PROFILE) for turn in past.turns], excess)
    if not count:
        return list(messages), 0
    body = past.compacted(count, name)
    item = SummaryItem(body.first_message_id, body.last_message_id, body.summary_text)
    return [*messages, Message(name, "conv", "run", datetime(2026, 11, 22, tzinfo=UTC), item)], count


@given(messages=CONVERSATIONS, excess=st.integers(1, 600), more=st.integers(1, 600))
def test_the_oldest_whole_turns_go_and_the_last_stays(messages: list[Message], excess: int, more: int) -> None:
    before, own = model_messages(messages), model_messages(messages[last_input(messages) :])
    input_id = messages[last_input(messages)].message_id
    for name, wanted in (("first", excess), ("second", more)):
        told = size_of(model_messages(messages), PROFILE)
        after, count = compacted(messages, wanted, name)
        if not count:
            assert not Past.of(messages, input_id).turns
            return
        summary, *rest = model_messages(after)
        assert isinstance(summary, UserMessage)
        assert name in text_of(summary.parts)
        # What is left is the end of what was there: no pair is split, and what a user said comes first.
        assert rest == list(before[len(before) - len(rest) :])
        assert isinstance(rest[0], UserMessage)
        assert rest[len(rest) - len(own) :] == list(own)
        past = Past.of(after, input_id)
        assert past.summary is not None
        assert past.summary.first_message_id == messages[0].message_id
        assert told - size_of(rest, PROFILE) >= wanted or not past.turns, "too little, and there was more"
        # Where nothing is to go, nothing does.
        assert compacted(after, 0, "again") == (after, 0)
        messages = after


@given(sizes=st.lists(st.integers(1, 100), max_size=9), excess=st.integers(-10, 1000))
def test_as_many_turns_go_as_are_needed_and_no_more(sizes: list[int], excess: int) -> None:
    count = oldest(sizes, excess)
    assert sum(sizes[:count]) >= excess or count == len(sizes)
    assert count == 0 or sum(sizes[: count - 1]) < excess


def test_a_history_that_is_read_from_behind_the_summary_on_is_the_same() -> None:
    whole = messages_of([user("a"), AssistantItem("b"), user("c"), SummaryItem("item_0", "item_1", "S"), user("d")])
    assert shown(whole) == shown(whole[2:]) == (whole[3], whole[2], whole[4])


def test_the_room_is_what_the_answer_leaves() -> None:
    assert Budget.of(1000) == Budget(800, 500, 125)
    assert Budget.of(1000, 500) == Budget(400, 250, 62.5)
    # An answer as large as the window leaves a part of it all the same.
    assert Budget.of(1000, 1000) == Budget(200, 125, 31.25)


def test_a_report_corrects_the_estimate_within_reason() -> None:
    count = TokenCount()
    assert (count.tokens_of(700), count.bytes_of(200)) == (200, 700)
    count.observe(700, 0)
    count.observe(0, 700)
    assert count.tokens_of(700) == 200
    count.observe(700, 350)
    assert (count.tokens_of(700), count.bytes_of(200)) == (350, 400)
    count.observe(700, 1)
    assert count.tokens_of(700) == 100


def test_sizes_are_of_bytes_and_images_are_all_as_large() -> None:
    def size(*messages: UserMessage | AssistantMessage, replays: bool = False) -> int:
        return size_of(messages, ProviderProfile(replay_reasoning="always") if replays else PROFILE)

    def said(text: str) -> UserMessage:
        return UserMessage((TextPart(text),))

    assert size(said("ü")) == size(said("u")) + 1
    small, large = (UserMessage((ImagePart("image/png", content=b"x" * n),)) for n in (1, 9999))
    assert size(small) == size(large) > 3000
    thought = AssistantMessage("a", reasoning="hmm")
    assert size(thought, replays=True) == size(thought) + 3


@given(text=st.text(max_size=50), max_bytes=st.integers(-1, 100))
def test_a_cut_text_is_a_beginning_that_fits(text: str, max_bytes: int) -> None:
    kept = cut(text, max_bytes)
    assert text.startswith(kept)
    assert len(kept.encode()) <= max(max_bytes, 0)


def test_the_model_is_asked_with_the_earlier_summary_and_the_newest_of_what_fits() -> None:
    messages = messages_of([user("old " * 50), AssistantItem("fine"), user("new"), a_call(1)])
    _, asked = question("They met.", messages, 100)
    assert isinstance(asked, UserMessage)
    text = text_of(asked.parts)
    assert "They met." in text
    assert "User: new" in text
    assert 'Tool read {}: {"ok":true}' in text
    assert "left out" in text
    assert 0 < text.count("old ") < 20


def test_without_a_summary_the_earlier_one_stays_and_it_is_said_once() -> None:
    sentence = without_summary("")
    assert "left out" in sentence
    assert without_summary(sentence) == sentence
    assert without_summary("They met.") == f"They met.\n\n{sentence}"
    assert len(sentence) < MAX_SUMMARY_BYTES
