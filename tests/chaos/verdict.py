"""What the promises say of a history: every violation of them, in words."""

import traceback
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from chaos import model_script
from chaos.aftermath import Aftermath, FinalRun
from chaos.effect_verdict import wrong_effects
from chaos.effects import Effect
from chaos.history import REFUSALS, History, Outcome
from parley.v1 import run_pb2
from run_history import check_messages, check_reading, check_run, check_told

MIN_SUCCESS = 0.3


def violations(history: History, aftermath: Aftermath, effects: Sequence[Effect]) -> list[str]:
    """Judge a history by what was there afterwards and by what has happened in the world."""
    return [
        *_lost_wishes(history, aftermath),
        *_lost_steers(history, aftermath),
        *_broken_runs(aftermath),
        *_changed_readings(history, aftermath),
        *wrong_effects(history, aftermath, effects),
        *_wrong_messages(history, aftermath),
        *_refusals(history),
        *aftermath.unreadable,
    ]


def _refusals(history: History) -> Iterator[str]:
    """Yield what was refused without need, and say so when too little was answered for the rest to prove anything."""
    for operation in history.operations:
        if operation.outcome is Outcome.FAIL and (operation.kind, operation.detail.split(":")[0]) not in REFUSALS:
            yield f"{operation.user}: {operation.kind} {operation.target} was refused: {operation.detail}"
    done = Counter(operation.outcome for operation in history.operations)
    if done[Outcome.OK] < MIN_SUCCESS * done.total():
        yield f"of {done.total()} operations only {done[Outcome.OK]} succeeded"


def _lost_wishes(history: History, aftermath: Aftermath) -> Iterator[str]:
    """Yield what was acknowledged and is not there, is there twice, or was never asked for."""
    by_request: defaultdict[str, list[FinalRun]] = defaultdict(list)
    for final in aftermath.runs.values():
        by_request[final.request_id].append(final)
    for wish in history.wishes:
        found = by_request.pop(wish.request_id, [])
        run_ids = [final.run.run_id for final in found]
        if len(run_ids) > 1 or (wish.run_ids and wish.run_ids != run_ids):
            yield f"{wish.request_id}: acknowledged as {wish.run_ids}, there is {run_ids}"
        states = {final.run.state for final in found}
        if wish.cancel_confirmed and states != {run_pb2.RUN_STATE_CANCELLED}:
            yield f"{wish.request_id}: cancelled, and its state is {states}"
        for final in found:
            if wish.in_conversation not in ("", final.run.conversation_id):
                yield f"{wish.request_id}: asked in {wish.in_conversation}, is in {final.run.conversation_id}"
            succeeded, text = final.run.state == run_pb2.RUN_STATE_SUCCEEDED, final.run.output_text
            if succeeded and text != model_script.answer(wish.prompt):
                yield f"{wish.request_id}: not the answer to {wish.prompt!r}: {text!r}"
    for request_id in by_request:
        yield f"{request_id}: a run that nobody asked for"


def _lost_steers(history: History, aftermath: Aftermath) -> Iterator[str]:
    """Yield the words that were taken and then neither applied nor given back, or more than once."""
    for wish in history.wishes:
        if not (final := aftermath.runs.get(wish.run_id)):
            continue
        told = [event.steer_applied.steer_id for event in final.events if event.HasField("steer_applied")]
        told += final.events[-1].run_finished.unapplied_steer_ids
        acknowledged = [steer_id for steer_id in wish.steers.values() if steer_id]
        if any(told.count(steer_id) != 1 for steer_id in acknowledged):
            yield f"{final.run.run_id}: words were taken as {acknowledged}, the log tells of {told}"
        if len(told) > len(wish.steers):
            yield f"{final.run.run_id}: was told {told}, more than anybody said"


def _broken_runs(aftermath: Aftermath) -> Iterator[str]:
    for run_id, final in aftermath.runs.items():
        yield from _told(run_id, partial(check_run, final.events))
        yield from _told(run_id, partial(check_told, final.run, final.events))
        yield from _told(run_id, partial(check_reading, final.again, final.events, is_whole=True))


def _changed_readings(history: History, aftermath: Aftermath) -> Iterator[str]:
    for reading in history.readings:
        run_id = reading.events[0].run_id if reading.events else ""
        if final := aftermath.runs.get(run_id):
            check = partial(check_reading, reading.events, final.events, reading.after_seq, is_whole=reading.is_whole)
            yield from _told(run_id, check)


def _wrong_messages(history: History, aftermath: Aftermath) -> Iterator[str]:
    prompts = {wish.request_id: wish.prompt for wish in history.wishes}
    for run_id, final in aftermath.runs.items():
        listed = aftermath.messages.get(final.run.conversation_id, [])
        own = [message for message in listed if message.run_id == run_id]
        yield from _told(run_id, partial(check_messages, final.events, own, prompt=prompts.get(final.request_id, "")))


def _told(run_id: str, check: Callable[[], None]) -> Iterator[str]:
    """Yield what an assertion of the checker says, or else where it stands."""
    try:
        check()
    except AssertionError as error:
        yield f"{run_id}: {error} [{traceback.extract_tb(error.__traceback__)[-1].line}]"
