"""What is kept for users: nobody gets what is another's, and there is no way to say less than whose it is."""

import asyncio
import gc
from functools import partial
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from parley_server.domain.context import RequestContext
from parley_server.domain.per_user import UserKey, UserMap, UserReads
from unit.tools.user_context import context_of

ANN, BOB = UserKey(context_of("ann")), UserKey(context_of("bob"))
USERS = {"ann": ANN, "bob": BOB}


class Page:
    """Something that can be referred to weakly."""


def test_a_key_is_made_of_a_context_and_of_nothing_else() -> None:
    for other in ("ann", None, SimpleNamespace(user_id="ann"), ANN):
        with pytest.raises(TypeError):
            UserKey(other)  # type: ignore[arg-type]  # what the type checker refuses is refused at run time, too


def test_a_stored_context_makes_the_key_of_the_call_it_was_stored_by() -> None:
    stored = RequestContext.from_json(context_of("ann").to_json())
    assert UserKey(stored) == ANN
    assert hash(UserKey(stored)) == hash(ANN)


def test_a_key_is_like_no_text_and_cannot_be_changed() -> None:
    assert ANN != BOB
    assert ANN != "ann"
    with pytest.raises(AttributeError):
        ANN.user_id = "bob"  # type: ignore[attr-defined]  # there is nothing to set


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["put", "pop", "make", "drop"]), st.sampled_from(["ann", "bob"]), st.sampled_from("xy")
        )
    )
)
def test_whatever_is_done_users_get_what_they_put_there_themselves(steps: list[tuple[str, str, str]]) -> None:
    kept: UserMap[str, str] = UserMap()
    expected: dict[tuple[str, str], str] = {}
    for number, (what, user, name) in enumerate(steps):
        value = f"{user} {number}"
        match what:
            case "put":
                kept.put(USERS[user], name, value)
                expected[user, name] = value
            case "pop":
                assert kept.pop(USERS[user], name) == expected.pop((user, name), None)
            case "drop":
                dropped = {key: expected.pop(key) for key in list(expected) if key[0] == user}
                assert sorted(kept.drop(user)) == sorted(dropped.values())
            case _:
                made = kept.get_or_make(USERS[user], name, partial(str, value))
                assert made == expected.setdefault((user, name), value)
        assert {(u, n): kept.get(USERS[u], n) for u in USERS for n in "xy"} == {
            (u, n): expected.get((u, n)) for u in USERS for n in "xy"
        }
        assert len(kept) == len(expected)
        assert sorted(kept) == sorted(expected.values())


def test_all_of_a_user_is_let_go_of_and_nothing_of_another() -> None:
    kept: UserMap[str, str] = UserMap()
    for user, name in ((ANN, "a"), (ANN, "b"), (BOB, "a")):
        kept.put(user, name, f"{name} of {'ann' if user is ANN else 'bob'}")
    assert sorted(kept.drop("ann")) == ["a of ann", "b of ann"]
    assert kept.drop("ann") == ()
    assert list(kept) == ["a of bob"]


async def test_calls_of_one_user_share_a_read_and_calls_of_two_do_not() -> None:
    reads: UserReads[str, Page] = UserReads()
    let_go = asyncio.Event()
    begun = 0

    async def read() -> Page:
        nonlocal begun
        begun += 1
        await let_go.wait()
        return Page()

    asking = [asyncio.create_task(reads.get(user, "page", read)) for user in (ANN, ANN, BOB)]
    await asyncio.sleep(0)
    let_go.set()
    first, second, other = await asyncio.gather(*asking)
    assert begun == 2
    assert first is second
    assert other is not first


async def test_a_read_that_fails_or_is_cancelled_is_nobodys_answer() -> None:
    reads: UserReads[str, Page] = UserReads()

    async def fail() -> Page:
        raise ValueError("broken")

    async def stay() -> Page:
        await asyncio.Event().wait()
        return Page()

    async def read() -> Page:
        return Page()

    with pytest.raises(ValueError, match="broken"):
        await reads.get(ANN, "page", fail)
    stuck = asyncio.create_task(reads.get(ANN, "page", stay))
    waiting = asyncio.create_task(reads.get(ANN, "page", read))
    await asyncio.sleep(0)
    stuck.cancel()
    assert isinstance(await waiting, Page)


async def test_what_nobody_has_in_his_hands_is_read_again() -> None:
    reads: UserReads[str, Page] = UserReads()
    made: list[int] = []

    async def read() -> Page:
        made.append(1)
        return Page()

    await reads.get(ANN, "page", read)
    gc.collect()
    await reads.get(ANN, "page", read)
    assert len(made) == 2
