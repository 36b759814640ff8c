"""A key answers a question only when it can be meant for it."""

import asyncio

import pytest
from parley_console.aside import QUIET_S, Aside


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def aside(clock: Clock) -> Aside:
    return Aside(lambda: None, clock)


async def begun(aside: Aside) -> asyncio.Task[str]:
    choosing = asyncio.create_task(aside.choose("1 yes · 2 no", "12"))
    await asyncio.sleep(0)
    return choosing


async def test_a_key_counts_once_nobody_has_typed_for_a_moment(aside: Aside, clock: Clock) -> None:
    choosing = await begun(aside)
    assert not aside.offers("1", "")
    assert aside.row("") == "…"
    clock.now += QUIET_S
    assert aside.offers("1", "")
    assert not aside.offers("3", "")
    assert aside.row("") == "1 yes · 2 no"
    aside.press("1")
    assert await choosing == "1"
    assert (aside.offers("1", ""), aside.row("")) == (False, "")


async def test_what_is_being_typed_is_no_answer(aside: Aside, clock: Clock) -> None:
    choosing = await begun(aside)
    clock.now += QUIET_S
    assert not aside.offers("1", "a message with a ")
    assert "clear it first" in aside.row("a message with a ")
    aside.touched()  # the line was sent: the next key may still belong to it
    assert not aside.offers("1", "")
    clock.now += QUIET_S
    assert aside.offers("1", "")
    choosing.cancel()


async def test_a_question_that_is_dropped_leaves_the_screen(aside: Aside, clock: Clock) -> None:
    choosing = await begun(aside)
    clock.now += QUIET_S
    choosing.cancel()
    await asyncio.wait([choosing])
    assert (aside.offers("1", ""), aside.row("")) == (False, "")
    aside.press("1")


@pytest.mark.parametrize("line", ["because", "", None])
async def test_a_line_that_is_asked_for_is_given_or_taken_back(aside: Aside, line: str | None) -> None:
    asking = asyncio.create_task(aside.ask("why? "))
    await asyncio.sleep(0)
    assert aside.question == "why? "
    aside.send(line)
    aside.send("another")
    assert await asking == line
    assert aside.question == ""
