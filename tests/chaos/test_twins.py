"""What breaks a promise is found. Each of these must fail, or the campaign proves nothing by passing."""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
from chaos.campaign import Plan, Round, play
from chaos.history import Outcome
from chaos.verdict import violations
from parley.v1.run_pb2 import RUN_STATE_SUCCEEDED
from shim import why_not

pytestmark = pytest.mark.chaos


@pytest.mark.skipif(bool(why_not()), reason=why_not())
async def test_a_server_that_does_not_sync_its_commits_loses_runs_by_power_cuts(tmp_path: Path) -> None:
    plan = Plan(5, "unsynced", power_cuts=True, twin="unsynced", points=["run_finished", "message_completed"])
    found = (await play(plan, tmp_path)).violations
    assert [each for each in found if "acknowledged as" in each and each.endswith("there is []")]


async def test_a_server_that_repeats_every_tool_does_a_write_twice(tmp_path: Path) -> None:
    found = (await play(Plan(4, "repeating", twin="repeating", points=["book after"]), tmp_path)).violations
    assert [each for each in found if "is a WRITE, and happened" in each]


@pytest.fixture(scope="module")
async def good(tmp_path_factory: pytest.TempPathFactory) -> Round:
    """A round without a fault, for tests that put one in."""
    played = await play(Plan(2, "good", users=4, points=["text_delta"]), tmp_path_factory.mktemp("good"))
    assert not played.violations
    return played


def drop_seen(played: Round) -> None:
    del next(reading.events for reading in played.history.readings if len(reading.events) > 2)[1]


def drop_stored(played: Round) -> None:
    del next(final.events for final in played.aftermath.runs.values() if len(final.events) > 2)[1]


def change_seen(played: Round) -> None:
    deltas = (event for reading in played.history.readings for event in reading.events if event.HasField("text_delta"))
    next(deltas).text_delta.text += "!"


def lose_run(played: Round) -> None:
    played.aftermath.runs.pop(next(wish.run_id for wish in played.history.wishes if wish.run_id))


def lose_message(played: Round) -> None:
    del next(messages for messages in played.aftermath.messages.values() if len(messages) > 1)[1]


def tell_otherwise(played: Round) -> None:
    next(iter(played.aftermath.runs.values())).run.last_seq += 1


def ignore_cancel(played: Round) -> None:
    of_request = {final.request_id: final.run.state for final in played.aftermath.runs.values()}
    wishes = (wish for wish in played.history.wishes if of_request.get(wish.request_id) == RUN_STATE_SUCCEEDED)
    next(wishes).cancel_confirmed = True


def answer_halfway(played: Round) -> None:
    runs = (final.run for final in played.aftermath.runs.values() if final.run.state == RUN_STATE_SUCCEEDED)
    next(runs).output_text = "Done"


def forget_words(played: Round) -> None:
    next(wish for wish in played.history.wishes if wish.run_id).steers["lost"] = "steer_lost"


def do_twice(played: Round) -> None:
    played.effects = [effect for effect in played.effects for _ in range(2)]


def do_nothing(played: Round) -> None:
    played.effects = []


def invent(played: Round) -> None:
    played.history.wishes.pop(next(at for at, wish in enumerate(played.history.wishes) if wish.run_id))


def answer_nothing(played: Round) -> None:
    dead = [vars(operation) | {"outcome": Outcome.UNKNOWN} for operation in played.history.operations]
    played.history.operations = [type(played.history.operations[0])(**each) for each in dead]


@pytest.mark.parametrize(
    ("break_it", "complaint"),
    [
        (drop_seen, "seen as"),
        (drop_stored, "seq"),
        (change_seen, "read again as"),
        (lose_run, "there is []"),
        (lose_message, "told == "),
        (tell_otherwise, "run.last_seq"),
        (ignore_cancel, "cancelled, and its state"),
        (answer_halfway, "not the answer to"),
        (forget_words, "words were taken as"),
        (do_twice, "is a WRITE"),
        (do_nothing, "is told as done"),
        (invent, "nobody asked for"),
        (answer_nothing, "only 0 succeeded"),
    ],
)
def test_a_fault_in_a_history_is_found(break_it: Callable[[Round], None], complaint: str, good: Round) -> None:
    broken = copy.deepcopy(good)
    break_it(broken)
    found = violations(broken.history, broken.aftermath, broken.effects)
    assert [each for each in found if complaint in each], found
