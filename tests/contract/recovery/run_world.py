"""An engine that is killed and parked at will, and what a user was promised of its runs."""

import asyncio
import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing
from dataclasses import dataclass, field
from datetime import timedelta

from contract.recovery.played_runs import Call, PlayedModel, PlayedTools, Question
from contract.recovery.recovering import an_engine, statuses_of
from contract.storage.conftest import context_for
from contract.storage.test_repositories import spec
from contract.storage.test_run_log import decoded
from parley.v1 import run_event_pb2
from parley_server.domain.errors import ConversationBusyError, QueueFullError
from parley_server.domain.idempotency import Idempotency
from parley_server.domain.run import ConcurrencyPolicy, Limits, Run, RunState
from parley_server.domain.run_event import HistoryTruncated, StoredEvent
from parley_server.domain.tool import ToolCall
from parley_server.domain.usage import Usage
from parley_server.llm.model_service import FinishChunk, FinishReason, ModelChunk
from parley_server.runs.engine import RunEngine
from parley_server.storage.sql.store import SqlStore
from run_history import check_run

LIVENESS_S = 30.0
SHORT = timedelta(milliseconds=400)
MAX_FRUITLESS = 5

OpenStore = Callable[[], AbstractAsyncContextManager[SqlStore]]


@dataclass
class Promise:
    """A run as its user knows it."""

    label: str
    run_id: str
    conversation_id: str
    is_short: bool = False
    # The ends that something was done for.
    may_end: set[RunState] = field(default_factory=set)
    is_cancelled: bool = False
    restarts: int = 0
    state: RunState = RunState.QUEUED
    seen: list[StoredEvent] = field(default_factory=list)

    @property
    def is_over(self) -> bool:
        return self.state.is_terminal


class RunWorld:
    """The engine of now, its store, its model; the tools' effects and the promises outlive it."""

    def __init__(self, open_store: OpenStore) -> None:
        self.ann = context_for("ann")
        self.promises: list[Promise] = []
        self.tools = PlayedTools()
        self.model = PlayedModel()
        self._open_store = open_store
        self._stack = AsyncExitStack()
        self._numbers: Iterator[int] = iter(range(1_000_000))
        self.engine: RunEngine
        self.store: SqlStore

    async def begin(self) -> None:
        """Start an engine on whatever the store holds."""
        self._stack = AsyncExitStack()
        self.model = PlayedModel()
        self.tools.waiting = {}
        self.store = await self._stack.enter_async_context(self._open_store())
        self.engine = await self._stack.enter_async_context(an_engine(self.store, self.model, self.tools.tools()))
        await self.engine.recover()

    async def crash(self) -> None:
        """Let another process take over while the former one still believes that it owns the runs."""
        former, waiting = self._stack, self.tools.waiting
        self._note_restart()
        await self.begin()
        # Too late: it was fenced off. A call that it had begun takes effect all the same.
        await _closed(former, waiting)

    async def park(self) -> None:
        """Stop in order and start again; what was under way ends, or is done again."""
        self._note_restart()
        await _closed(self._stack, self.tools.waiting)
        await self.begin()

    async def end(self) -> None:
        """Let all runs come to their ends, and stop."""
        while not all(promise.is_over for promise in self.promises):
            for question in tuple(self.model.questions.values()):
                if question.is_idle:
                    question.say(FinishChunk(FinishReason.STOP, usage=Usage(output_tokens=1)))
            for promise in self.promises:
                promise.may_end.add(RunState.SUCCEEDED)
            for call in tuple(self.tools.waiting):
                self.tools.end(call, takes_effect=True)
            await self.settle()
            await self.check()
        await self.close()

    async def close(self) -> None:
        """Stop, whatever is under way."""
        await _closed(self._stack, self.tools.waiting)

    async def start(
        self, conversation_id: str, policy: ConcurrencyPolicy, request_id: str, *, is_short: bool
    ) -> Promise | None:
        """Start a run; None when the conversation has no room for it."""
        label = f"run {next(self._numbers)}"
        limits = Limits(deadline=SHORT) if is_short else Limits()
        wish = spec(label, conversation_id, concurrency_policy=policy, limits=limits)
        fingerprint = hashlib.sha256(repr((conversation_id, policy, is_short)).encode()).digest()
        idempotency = Idempotency(request_id, "run", fingerprint) if request_id else None
        try:
            run = await self.engine.start(self.ann, wish, idempotency)
        except (ConversationBusyError, QueueFullError) as error:
            self._check_refusal(conversation_id, 5 if isinstance(error, QueueFullError) else 1)
            return None
        known = {promise.run_id: promise for promise in self.promises}
        if run.run_id in known:
            return known[run.run_id]
        promise = Promise(label, run.run_id, run.conversation_id, is_short)
        self.promises.append(promise)
        return promise

    def new_number(self) -> int:
        return next(self._numbers)

    async def cancel(self, promise: Promise) -> None:
        """Cancel a run; from then on it has no other end, unless it had one."""
        promise.may_end.add(RunState.CANCELLED)
        run = await self.engine.cancel(self.ann, promise.run_id, "")
        assert run.state is RunState.CANCELLING or run.state.is_terminal, f"a cancel was lost: {run.state}"
        promise.is_cancelled |= run.state in (RunState.CANCELLING, RunState.CANCELLED)

    async def outlast_deadlines(self) -> None:
        """Wait until the runs that have little time have none, and are over, but for WRITEs that are given time."""
        if any(promise.is_short and not promise.is_over for promise in self.promises):
            await asyncio.sleep(SHORT.total_seconds())
        async with asyncio.timeout(LIVENESS_S):
            for promise in self.promises:
                while promise.is_short and not await self._is_out_of_time(promise):  # noqa: ASYNC110  # asked of the store
                    await asyncio.sleep(0.01)

    async def _is_out_of_time(self, promise: Promise) -> bool:
        run = await self.run_of(promise)
        return run.state.is_terminal or any(name == "book" for name, _ in self.tools.waiting)

    def _check_refusal(self, conversation_id: str, runs_in_the_way: int) -> None:
        others = [each for each in self.promises if each.conversation_id == conversation_id and not each.is_over]
        assert len(others) >= runs_in_the_way, "refused by nobody"

    async def settle(self) -> None:
        """Wait until every run waits for somebody or is over: none may be forgotten."""
        async with asyncio.timeout(LIVENESS_S):
            while not all([await self._is_still(each) for each in self.promises]):  # noqa: ASYNC110  # asked of the store
                await asyncio.sleep(0.002)

    async def check(self) -> None:
        """Hold what is there against what was promised."""
        for promise in self.promises:
            await self._check(promise)
        for conversation_id in {promise.conversation_id for promise in self.promises}:
            await self._check_order([each for each in self.promises if each.conversation_id == conversation_id])

    async def _is_still(self, promise: Promise) -> bool:
        if promise.is_over:
            return True
        promise.state = state = (await self.run_of(promise)).state
        if state.is_terminal or idle_question(self, promise) is not None:
            return True
        if state is RunState.QUEUED:
            return any(not other.is_over for other in self._before(promise))
        return await self._has_only_calls_open(promise)

    async def _has_only_calls_open(self, promise: Promise) -> bool:
        """Tell whether a run waits for its tools."""
        if promise.label in self.model.questions or not self.tools.waiting:
            return False
        events = decoded(await self._events(promise, (await self.run_of(promise)).last_seq))
        started = {e.tool_call_started.call_id: e.tool_call_started for e in events if e.HasField("tool_call_started")}
        for event in events:
            started.pop(event.tool_call_finished.call_id, None)
        calls = {(call.name, json.loads(call.arguments_json)["n"]) for call in started.values()}
        in_hand = calls & set(self.tools.waiting)
        # While a run that is stopped leaves a WRITE its time, its other calls are cut and not answered yet.
        return bool(in_hand) and (in_hand == calls or "book" in {name for name, _ in in_hand})

    def _before(self, promise: Promise) -> list[Promise]:
        place = self.promises.index(promise)
        return [each for each in self.promises[:place] if each.conversation_id == promise.conversation_id]

    async def run_of(self, promise: Promise) -> Run:
        return await self.store.for_user(self.ann).runs.get(promise.run_id)

    async def _events(self, promise: Promise, last_seq: int) -> list[StoredEvent]:
        """Read a run's log up to a durable event."""
        events: list[StoredEvent] = []
        async with aclosing(self.store.for_user(self.ann).runs.watch(promise.run_id, 0)) as batches:
            while len(events) < last_seq:
                batch = await anext(batches)
                assert not isinstance(batch, HistoryTruncated)
                events += batch
        return events[:last_seq]

    async def _check(self, promise: Promise) -> None:
        run = await self.run_of(promise)
        stored = await self._events(promise, run.last_seq)
        # Nothing that was durable is ever taken back.
        assert stored[: len(promise.seen)] == promise.seen
        promise.seen = stored
        events = decoded(stored)
        # It may have ended between the reading of its row and of its log.
        is_finished = events[-1].HasField("run_finished")
        check_run(events, finished=is_finished)
        assert is_finished or not run.state.is_terminal
        if run.state.is_terminal:
            assert run.state in self._ends(promise), (promise, run.state)
            self._check_effects(events)
        elif promise.is_cancelled and not is_finished:
            assert run.state is RunState.CANCELLING

    def _ends(self, promise: Promise) -> set[RunState]:
        if promise.is_cancelled:
            return {RunState.CANCELLED}
        ends = set(promise.may_end)
        if promise.is_short:
            ends.add(RunState.EXPIRED)
        if promise.restarts >= MAX_FRUITLESS:
            ends.add(RunState.FAILED)
        return ends

    def _check_effects(self, events: list[run_event_pb2.RunEvent]) -> None:
        for call, status in statuses_of(events).items():
            times, keys = self.tools.happened[call], self.tools.keys.get(call, set())
            if call[0] == "book":
                assert times <= 1, f"{call} happened twice"
                assert status != "CANCELLED" or not times, f"{call} happened and is told as cancelled"
                assert status != "ERROR" or not times, f"{call} happened and is told as failed"
            assert status != "OK" or times, f"{call} is told as done and never happened"
            assert len(keys) <= 1, f"{call} had two keys"

    async def _check_order(self, promises: list[Promise]) -> None:
        """Assert that no run began before all that were accepted before it were over."""
        has_begun = False
        # Read backwards, for what comes before a run that has begun is over by then.
        for promise in reversed(promises):
            state = (await self.run_of(promise)).state
            assert state.is_terminal or not has_begun, f"{promise.label} was overtaken"
            has_begun = has_begun or state in (RunState.RUNNING, RunState.CANCELLING)

    def _note_restart(self) -> None:
        for promise in self.promises:
            promise.restarts += 1


async def _closed(stack: AsyncExitStack, waiting: "dict[Call, asyncio.Future[bool]]") -> None:
    """Stop an engine, and let the calls that its tools are at take effect."""
    closing = asyncio.create_task(stack.aclose())
    while not closing.done():
        for told in waiting.values():
            if not told.done():
                told.set_result(True)
        await asyncio.wait({closing}, timeout=0.01)
    await closing


def tool_calls(calls: list[tuple[str, int]]) -> ModelChunk:
    """Return the end of an answer that asks for calls."""
    made = tuple(ToolCall(f"p{n}", name, json.dumps({"n": number})) for n, (name, number) in enumerate(calls))
    return FinishChunk(FinishReason.TOOL_CALLS, made, Usage(output_tokens=1))


def idle_question(world: RunWorld, promise: Promise) -> Question | None:
    """Return the model's stream of a run that waits for more of it."""
    question = world.model.questions.get(promise.label)
    return question if question is not None and question.is_idle else None
