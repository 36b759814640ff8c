"""Full text on every engine: plain words, the same hits everywhere, a user's own conversations alone."""

import pytest
from contract.storage.test_repositories import answer, spec
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from parley_server.domain.context import RequestContext
from parley_server.domain.conversation import ConversationChanges
from parley_server.domain.errors import PageTokenInvalidError
from parley_server.storage.page import PageRequest
from parley_server.storage.repositories import UserStore
from parley_server.storage.sql.search import words_of
from parley_server.storage.sql.store import SqlStore


async def titles(user: UserStore, query: str) -> list[str]:
    """Return the titles of what is found."""
    return [found.title for found in (await user.conversations.list(PageRequest(50), query)).items]


@pytest.mark.parametrize(
    ("query", "is_found"),
    [
        ("invoice", True),
        ("INVOICE march", True),
        ("march invoice", True),
        ("inv", True),
        ("inv march", False),
        ("nvoice", False),
        ("cafe", True),
        ("CAFÉ", True),
        ("ΟΔΟΣ", True),
        ("strasse", True),
        ("приве", True),
        ("2026", True),
        ("invoice april", False),
        ('"invoice"', True),
        ("invoice*", True),
        ("inv* march", False),
        ("invoice AND march", False),
        ("NOT invoice", False),
        ("invoice:*", True),
        ("words:invoice", False),
        ("invoice | april", False),
        ("-invoice", True),
        ("' OR 1=1 --", False),
        ("\\", True),
        ("", True),
        ("  \0 ", True),
    ],
)
async def test_query_words_are_words_and_no_syntax(
    query: str, *, is_found: bool, store: SqlStore, ann: RequestContext
) -> None:
    user = store.for_user(ann)
    await user.conversations.create("Invoice for March-2026: Café, ὁδός, Straße, привет_мир", {})
    assert bool(await titles(user, query)) is is_found


async def test_what_was_said_is_found_in_the_order_of_the_list(
    store: SqlStore, ann: RequestContext, bob: RequestContext
) -> None:
    user = store.for_user(ann)
    for place, title in enumerate(("first", "second", "third")):
        made = await user.conversations.create(title, {})
        run = (await user.runs.accept(spec(f"about the harbour {place}", made.conversation_id), None)).run
        await store.worker.appender(run.run_id).finish(answer(f"ships {place}, {'boats' if place else 'cranes'}"))
    assert await titles(user, "harbour") == ["third", "second", "first"]
    assert await titles(user, "boats harbour") == ["third", "second"]
    assert await titles(user, "second bo") == ["second"]
    assert await titles(store.for_user(bob), "harbour") == []
    page = await user.conversations.list(PageRequest(2), "harbour")
    rest = await user.conversations.list(PageRequest(2, page.next_token), "harbour")
    assert [found.title for found in rest.items] == ["first"]
    with pytest.raises(PageTokenInvalidError):
        await user.conversations.list(PageRequest(2, page.next_token), "ships")


async def test_a_former_title_and_what_is_deleted_are_not_found(store: SqlStore, ann: RequestContext) -> None:
    user = store.for_user(ann)
    made = await user.conversations.create("Harbour", {})
    other = await user.conversations.create("Harbour too", {})
    run = (await user.runs.accept(spec("cranes", made.conversation_id), None)).run
    await store.worker.appender(run.run_id).finish(answer("x"))
    await user.conversations.update(made.conversation_id, ConversationChanges(title="Ships"))
    assert await titles(user, "harbour") == ["Harbour too"]
    assert await titles(user, "ships cranes") == ["Ships"]
    await user.conversations.delete(made.conversation_id)
    assert await titles(user, "ships") == await titles(user, "cranes") == []
    await user.conversations.delete(other.conversation_id)
    assert await titles(user, "harbour") == []


async def test_a_text_beyond_all_measure_is_stored_and_found_by_its_beginning(
    store: SqlStore, ann: RequestContext
) -> None:
    user = store.for_user(ann)
    text = (
        "\N{CJK UNIFIED IDEOGRAPH-4E00}" * 5000
        + " "
        + " ".join(f"{n:x}\N{CYRILLIC SMALL LETTER YA}" for n in range(40_000))
    )
    run = (await user.runs.accept(spec(text[:60_000]), None)).run
    await store.worker.appender(run.run_id).finish(answer(text))
    assert len(await titles(user, "\N{CJK UNIFIED IDEOGRAPH-4E00}" * 70)) == 1
    assert len(await titles(user, "fff\N{CYRILLIC SMALL LETTER YA}")) == 1


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(title=st.text(max_size=40), query=st.text(max_size=20))
@example(title="İ ǅ ﬁ ① ² ½ ٣ अन्तर्राष्ट्रीय 北京", query="i")
@example(title="¤0 a", query="¤0")
async def test_any_title_is_found_by_its_own_words(
    store: SqlStore, ann: RequestContext, title: str, query: str
) -> None:
    user = store.for_user(ann)
    title = title.replace("\0", "")
    made = await user.conversations.create(title, {})
    await user.conversations.list(PageRequest(1), query)
    assert title in await titles(user, title)
    for word in words_of(title):
        assert title in await titles(user, word)
        assert title in await titles(user, word[:1])
    expected = set(words_of(query)[:-1]) <= set(words_of(title)) and (
        not words_of(query) or any(word.startswith(words_of(query)[-1]) for word in words_of(title))
    )
    assert (title in await titles(user, query)) is expected
    await user.conversations.delete(made.conversation_id)
