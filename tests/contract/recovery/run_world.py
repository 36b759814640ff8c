"""An engine that is killed and parked at will, with what its user does; what he was promised is in the model."""

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing
from datetime import UTC, datetime

from contract.recovery.asking import pending
from contract.recovery.played_runs import WRITES, Call, PlayedModel, PlayedTools, Question
from contract.recovery.recovering import an_engine
from contract.recovery.run_model import GRACE, SHORT, Promise, RunModel, Wish
from contract.storage.conftest import context_for
from contract.storage.test_repositories import spec
from contract.storage.test_run_log import decoded
from parley_server.domain.approval import Approval, ApprovalAnswer, ApprovalCancelledError
from parley_server.domain.content import TextPart
from parley_server.domain.errors import (
    ConversationBusyError,
    NotFoundError,
    QueueFullError,
    RunNotSteerableError,
)
from parley_server.domain.idempotency import Idempotency
from parley_server.domain.run import (
    MAX_PENDING_STEERS,
    MAX_QUEUED_RUNS,
    MAX_STEPS,
    MAX_TOOL_CALLS,
    ConcurrencyPolicy,
    DisconnectPolicy,
    Limits,
    Run,
    RunSpec,
    RunState,
    StopReason,
)
from parley_server.domain.run_event import HistoryTruncated, StoredEvent
from parley_server.domain.tool import ToolCall
from parley_server.domain.usage import Usage
from parley_server.llm.model_service import FinishChunk, FinishReason, ModelChunk
from parley_server.runs.engine import RunEngine
from parley_server.storage.sql.store import SqlStore

LIVENESS_S = 30.0

OpenStore = Callable[[], AbstractAsyncContextManager[SqlStore]]
# When the run of this id is cancelled because nobody is there, as the store has it.
GraceOf = Callable[[str], Awaitable[object]]


class RunWorld:
    """The engine of now, its store, its model; the tools' effects and the promises outlive it."""

    def __init__(self, open_store: OpenStore, grace_of: GraceOf) -> None:
        self.ann = context_for("ann")
        self.runs = RunModel()
        self.tools = PlayedTools()
        self.model = PlayedModel()
        self._open_store = open_store
        self._grace_of = grace_of
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
        self.engine = await self._stack.enter_async_context(self._an_engine())
        await self.engine.recover()

    def _an_engine(self) -> AbstractAsyncContextManager[RunEngine]:
        return an_engine(self.store, self.model, self.tools.tools(), disconnect_grace=GRACE)

    async def crash(self) -> None:
        """Let another process take over while the former one still believes that it owns the runs."""
        former, waiting = self._stack, self.tools.waiting
        self._note_restart()
        await self.begin()
        # Too late: it was fenced off. A call that it had begun takes effect all the same.
        await _closed(former, waiting)

    async def park(self) -> None:
        """Stop in order and start again; what was under way ends, or is done again."""
        for promise in self.promises:
            if promise.call is not None:
                promise.call.leave(is_lost=False)
        self._note_restart()
        await _closed(self._stack, self.tools.waiting)
        await self.begin()

    @property
    def promises(self) -> list[Promise]:
        """What there is and was not deleted."""
        return self.runs.promises

    async def close(self) -> None:
        """Stop, whatever is under way."""
        await _closed(self._stack, self.tools.waiting)

    async def start(self, wish: Wish) -> Promise | None:
        """Start a run, and follow it where it needs that; None when the conversation has no room for it."""
        label = f"run {self.new_number()}"
        others = [each for each in self.runs.of(wish.conversation_id) if not each.is_over]
        try:
            run = await self.engine.start(self.ann, _spec_of(wish, label), _idempotency_of(wish))
        except ConversationBusyError:
            assert others, "refused by nobody"
            return None
        except QueueFullError:
            assert len(others) > MAX_QUEUED_RUNS, "refused by too few"
            return None
        known = {promise.run_id: promise for promise in self.promises}
        if run.run_id in known:
            return known[run.run_id]
        promise = Promise(label, run.run_id, run.conversation_id, wish)
        interrupts = wish.policy is ConcurrencyPolicy.INTERRUPT
        self.runs.add(promise, await self._waiting_behind(promise, others) if interrupts else [])
        await self.come_back(promise, is_caller=True)
        return promise

    async def _waiting_behind(self, promise: Promise, others: list[Promise]) -> list[Promise]:
        """Return the runs that wait now that this one was accepted as an interruption: the one it met is stopped."""
        waiting, stopped = [], []
        for other in others:
            run = await self.run_of(other)
            if run.state is RunState.QUEUED:
                waiting.append(other)
            elif run.state is RunState.CANCELLING or (run.end and run.end.stop_reason is StopReason.INTERRUPTED):
                stopped += [] if other.is_stopped else [other]
                other.stop(StopReason.INTERRUPTED)
            elif not run.state.is_terminal:
                assert (await self.run_of(promise)).state.is_terminal, "both runs go on"
        assert len(stopped) <= 1, "it has interrupted more than one"
        return waiting

    async def steer(self, promise: Promise, *, again: bool) -> None:
        """Add words to a run; they are accepted unless it is being stopped, is over or has enough of them."""
        number = self.new_number()
        words, idempotency = (TextPart(f"{promise.label}: {number}"),), Idempotency(f"steer {number}", "steer", b"")
        try:
            steer_id, _ = await self.engine.steer(self.ann, promise.run_id, words, idempotency)
        except RunNotSteerableError:
            state = (await self.run_of(promise)).state
            assert state is RunState.CANCELLING or state.is_terminal, f"no words for a run that is {state}"
        except QueueFullError:
            assert len(promise.steer_ids) >= MAX_PENDING_STEERS, "full of nothing"
        else:
            promise.steer_ids.append(steer_id)
            if again:
                assert (await self.engine.steer(self.ann, promise.run_id, words, idempotency))[0] == steer_id

    async def come_back(self, promise: Promise, *, is_caller: bool) -> None:
        """Follow a needy run again, as the call that it may not lose or as another."""
        if promise.wish.is_needy and promise.call is None:
            promise.call = await self.engine.attend(self.ann, promise.run_id, is_caller=is_caller)
            promise.is_caller = is_caller
            if not promise.return_by(datetime.now(UTC)):
                # Perhaps too late: so be it, and nobody has been there.
                promise.call.leave(is_lost=False)
                promise.call = await self.engine.attend(self.ann, promise.run_id, is_caller=True)
                await self.leave(promise)

    async def leave(self, promise: Promise) -> None:
        """Lose the call that follows a run; where that begins a grace it is durable when this returns."""
        if promise.call is None:
            return
        moment = datetime.now(UTC)
        call, promise.call = promise.call, None
        call.leave(is_lost=True)
        if promise.is_caller or promise.left_at:
            promise.lose(promise.left_at or moment)
            await until(lambda: self._is_given_grace(promise))

    async def _is_given_grace(self, promise: Promise) -> bool:
        state = (await self.run_of(promise)).state
        return state is RunState.CANCELLING or state.is_terminal or await self._grace_of(promise.run_id) is not None

    async def delete(self, conversation_id: str) -> None:
        """Delete a conversation; nothing of it is found any more, and nothing is deleted while a run of it goes on."""
        its_runs = self.runs.of(conversation_id)
        mine = self.store.for_user(self.ann)
        try:
            await mine.conversations.delete(conversation_id)
        except ConversationBusyError:
            assert not all(promise.is_over for promise in its_runs), "busy with nothing"
            return
        self.runs.forget(conversation_id)
        finding = [mine.conversations.get(conversation_id), *(mine.runs.get(promise.run_id) for promise in its_runs)]
        starting = self.engine.start(self.ann, _spec_of(Wish(conversation_id, ""), "late"), None)
        found = await asyncio.gather(*finding, starting, return_exceptions=True)
        assert all(isinstance(each, NotFoundError) for each in found), f"deleted, and found: {found}"

    def new_number(self) -> int:
        return next(self._numbers)

    async def cancel(self, promise: Promise) -> None:
        """Cancel a run; from then on it has no other end, unless it had one."""
        run = await self.engine.cancel(self.ann, promise.run_id, "")
        assert run.state is RunState.CANCELLING or run.state.is_terminal, f"a cancel was lost: {run.state}"
        if run.state in (RunState.CANCELLING, RunState.CANCELLED):
            promise.stop(StopReason.CANCEL_REQUESTED)

    async def approvals(self) -> list[tuple[Promise, Approval]]:
        """Return all that the user is asked at the moment."""
        return [
            (promise, approval)
            for promise in self.promises
            for approval in await pending(self.store, self.ann, promise.run_id)
        ]

    async def answer(self, promise: Promise, approval_id: str, *, is_yes: bool) -> None:
        """Answer an approval, twice; it is as he says, unless its run has ended."""
        for _ in range(2):
            try:
                approval = await self.engine.decide(self.ann, approval_id, ApprovalAnswer(is_approved=is_yes))
            except ApprovalCancelledError:
                assert approval_id not in promise.answers, "an answer was taken back"
                assert (await self.run_of(promise)).state.is_terminal, "cancelled, and its run goes on"
            else:
                promise.answers[approval_id] = approval.state

    async def let_time_pass(self) -> None:
        """Wait until deadlines and graces are over, and so are their runs, but for WRITEs that are given time."""
        if any(promise.is_short_lived for promise in self.promises):
            await asyncio.sleep(max(SHORT, GRACE).total_seconds())
        await until(self._are_out_of_time)

    async def _are_out_of_time(self) -> bool:
        late = [promise for promise in self.promises if promise.is_short_lived]
        states = [(await self.run_of(promise)).state for promise in late]
        return all(state.is_terminal for state in states) or any(name in WRITES for name, _ in self.tools.waiting)

    async def settle(self) -> None:
        """Wait until every run waits for somebody or is over: none may be forgotten."""
        await until(self._are_still)

    async def _are_still(self) -> bool:
        return all([await self._is_still(each) for each in self.promises])

    async def _is_still(self, promise: Promise) -> bool:
        if promise.is_over:
            return True
        promise.state = state = (await self.run_of(promise)).state
        # The model of a run that is being stopped is asked no more.
        if state.is_terminal or (state is not RunState.CANCELLING and idle_question(self, promise) is not None):
            return True
        if state is RunState.WAITING_APPROVAL:
            return bool(await pending(self.store, self.ann, promise.run_id))
        if state is RunState.QUEUED:
            return any(not other.is_over for other in self.runs.before(promise))
        return await self._has_only_calls_open(promise)

    async def _has_only_calls_open(self, promise: Promise) -> bool:
        """Tell whether a run waits for its tools."""
        if promise.label in self.model.questions or not self.tools.waiting:
            return False
        events = decoded(await self.events(promise, (await self.run_of(promise)).last_seq))
        started = {e.tool_call_started.call_id: e.tool_call_started for e in events if e.HasField("tool_call_started")}
        for event in events:
            started.pop(event.tool_call_finished.call_id, None)
        resolved = {event.approval_resolved.call_id for event in events}
        calls = {
            (call.name, json.loads(call.arguments_json)["n"])
            for call in started.values()
            if call.name != "pay" or call.call_id in resolved
        }
        in_hand = calls & set(self.tools.waiting)
        # While a run that is stopped leaves a WRITE its time, its other calls are cut and not answered yet.
        return bool(in_hand) and (in_hand == calls or any(name in WRITES for name, _ in in_hand))

    async def run_of(self, promise: Promise) -> Run:
        return await self.store.for_user(self.ann).runs.get(promise.run_id)

    async def events(self, promise: Promise, last_seq: int) -> list[StoredEvent]:
        """Read a run's log up to a durable event."""
        events: list[StoredEvent] = []
        async with aclosing(self.store.for_user(self.ann).runs.watch(promise.run_id, 0)) as batches:
            while len(events) < last_seq:
                batch = await anext(batches)
                assert not isinstance(batch, HistoryTruncated)
                events += batch
        return events[:last_seq]

    def _note_restart(self) -> None:
        for promise in self.promises:
            promise.restart()


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait for what has to come. No `asyncio.timeout`: a failure looks the same to Hypothesis wherever time ran out."""
    end = asyncio.get_running_loop().time() + LIVENESS_S
    while not await condition():
        assert asyncio.get_running_loop().time() < end, "a run is forgotten"
        await asyncio.sleep(0.002)


async def _closed(stack: AsyncExitStack, waiting: "dict[Call, asyncio.Future[bool]]") -> None:
    """Stop an engine, and let the calls that its tools are at take effect."""
    closing = asyncio.create_task(stack.aclose())
    while not closing.done():
        for told in waiting.values():
            if not told.done():
                told.set_result(True)
        await asyncio.wait({closing}, timeout=0.01)
    await closing


def _spec_of(wish: Wish, text: str) -> RunSpec:
    return spec(
        text,
        wish.conversation_id,
        concurrency_policy=wish.policy,
        disconnect_policy=DisconnectPolicy.CANCEL if wish.is_needy else DisconnectPolicy.CONTINUE,
        # So many that no history comes to the end of them.
        limits=Limits(
            SHORT if wish.is_short else Limits().deadline, max_steps=MAX_STEPS, max_tool_calls=MAX_TOOL_CALLS
        ),
    )


def _idempotency_of(wish: Wish) -> Idempotency:
    return Idempotency(wish.request_id, "run", hashlib.sha256(repr(wish).encode()).digest())


def tool_calls(calls: list[tuple[str, int]]) -> ModelChunk:
    """Return the end of an answer that asks for calls."""
    made = tuple(ToolCall(f"p{n}", name, json.dumps({"n": number})) for n, (name, number) in enumerate(calls))
    return FinishChunk(FinishReason.TOOL_CALLS, made, Usage(output_tokens=1))


def idle_question(world: RunWorld, promise: Promise) -> Question | None:
    """Return the model's stream of a run that waits for more of it."""
    question = world.model.questions.get(promise.label)
    return question if question is not None and question.is_idle else None
