"""The engine against whatever may happen to it, in any order, on every engine of the store.

A failure prints its seed and the steps. The soak takes seeds of its own: PARLEY_TEST_SEED=N plays one again,
and PARLEY_TEST_SHRINK=1 looks for the shortest history that fails.
"""

import asyncio
import os
import random
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from enum import Enum, auto
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import pytest
from contract.recovery.run_checks import check, check_one, finish
from contract.recovery.run_model import Promise, Wish
from contract.recovery.run_world import RunWorld, idle_question, tool_calls
from contract.storage.engines import Engine, PostgresEngine, SqliteEngine
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from parley_server.domain.errors import ErrorKind, NotFoundError, Reason
from parley_server.domain.run import ConcurrencyPolicy, StopReason
from parley_server.llm.model_service import FinishChunk, FinishReason, ModelError, TextChunk
from parley_server.rpc.mapping.run_event import ProtoEventCodec
from parley_server.storage.sql.store import SqlStore, open_store
from postgres_server import PostgresServer

T = TypeVar("T")
FreshEngine = Callable[[], AbstractAsyncContextManager[Engine]]

PLACES = st.integers(0, 7)
POLICIES = st.sampled_from(
    [ConcurrencyPolicy.QUEUE, ConcurrencyPolicy.QUEUE, ConcurrencyPolicy.REJECT, ConcurrencyPolicy.INTERRUPT]
)
Step = str | list[str]
CALLS = st.lists(st.sampled_from(["read", "put", "book", "pay"]), min_size=1, max_size=3)
STEPS = st.sampled_from(["text", "answer", "break"])
RARELY = st.sampled_from([False, False, True])


class Then(Enum):
    """What follows a step. Not every step is looked at: after some the next thing happens at once."""

    LOOK = auto()
    GO_ON = auto()
    CRASH = auto()


# With every step and not only by themselves: Hypothesis leaves out half of the rules in each history.
THEN = st.sampled_from([Then.LOOK] * 4 + [Then.GO_ON] * 2 + [Then.CRASH])


class History(RuleBasedStateMachine):
    """One history of an engine, its crashes and its runs.

    No rule has a precondition: what is under way depends on time, and may not decide about what is drawn.
    """

    fresh_engine: FreshEngine

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.opened = self.fresh_engine()
        self.is_whole = True
        self.started: list[Promise] = []

    @initialize()
    def begin(self) -> None:
        engine = self.run(self.opened.__aenter__())

        @asynccontextmanager
        async def opening() -> AsyncIterator[SqlStore]:
            async with engine.open() as database, open_store(database, ProtoEventCodec(), b"page token key") as store:
                yield store

        async def grace_of(run_id: str) -> object:
            [(end_time,)] = await engine.rows(f"SELECT grace_end_time FROM runs WHERE run_id = '{run_id}'")  # noqa: S608
            return end_time

        self.world = RunWorld(opening, grace_of)
        self.run(self.world.begin())

    @rule(place=PLACES, is_new=st.booleans(), policy=POLICIES, is_short=RARELY, is_needy=st.booleans(), then=THEN)
    def start(
        self, place: int, is_new: bool, policy: ConcurrencyPolicy, is_short: bool, is_needy: bool, then: Then
    ) -> None:
        earlier = None if is_new else self.at(place, self.world.promises)
        wish = Wish(earlier.conversation_id if earlier else "", self.request(), policy, is_short, is_needy)
        self.do(self.start_with(wish), then)

    async def start_with(self, wish: Wish) -> Promise | None:
        promise = await self.world.start(wish)
        if promise is not None:
            self.started.append(promise)
        return promise

    @rule(place=PLACES, then=THEN)
    def start_again(self, place: int, then: Then) -> None:
        if (promise := self.at(place, self.started)) is None:
            return
        if promise.is_deleted:
            with pytest.raises(NotFoundError):
                self.runner.run(self.world.start(promise.wish))
        else:
            assert self.do(self.world.start(promise.wish), then) is promise

    @rule(place=PLACES, then=THEN)
    def interrupt(self, place: int, then: Then) -> None:
        going_on = [each for each in self.world.promises if not each.is_over]
        promise = self.at(place, going_on) or self.asking(place)
        wish = Wish(promise.conversation_id, self.request(), ConcurrencyPolicy.INTERRUPT)
        self.do(self.start_with(wish), then)

    @rule(place=PLACES, policy=POLICIES, ends=st.booleans(), delay_ms=st.integers(0, 4))
    def start_while_another_ends(self, place: int, policy: ConcurrencyPolicy, ends: bool, delay_ms: int) -> None:
        promise = self.at(place, [each for each in self.world.promises if not each.is_over])
        if promise is None:
            return

        async def race() -> None:
            wish = Wish(promise.conversation_id, self.request(), policy)
            starting = asyncio.create_task(self.start_with(wish))
            await asyncio.sleep(delay_ms / 1000)
            if ends:
                self.speak(promise, "answer")
            else:
                await self.world.cancel(promise)
            await starting
            if promise.is_stopped and policy is ConcurrencyPolicy.INTERRUPT:
                # Either wish may have been the first.
                promise.may_end |= {StopReason.CANCEL_REQUESTED, StopReason.INTERRUPTED}

        self.do(race(), Then.LOOK)

    @rule(place=PLACES, again=st.booleans(), is_heard=st.booleans(), then=THEN)
    def steer(self, place: int, again: bool, is_heard: bool, then: Then) -> None:
        going_on = [each for each in self.world.promises if not each.is_over]
        promise = self.at(place, going_on or self.world.promises) or self.asking(place)
        self.do(self.world.steer(promise, again=again), Then.LOOK)
        if is_heard:
            self.speak(promise, "answer")
            self.do(asyncio.sleep(0), Then.LOOK)
        self.do(asyncio.sleep(0), then)

    @rule(place=PLACES, stays_away=RARELY, then=THEN)
    def leave(self, place: int, stays_away: bool, then: Then) -> None:
        followed = [each for each in self.world.promises if each.call is not None and not each.is_over]
        if (promise := self.at(place, followed)) is None:
            promise = self.do(self.start_with(Wish("", self.request(), is_needy=True)), Then.LOOK)
            assert promise is not None
        self.do(self.world.leave(promise), then)
        if stays_away:
            self.let_time_pass()

    @rule(place=PLACES, is_caller=st.booleans(), then=THEN)
    def come_back(self, place: int, is_caller: bool, then: Then) -> None:
        unfollowed = [each for each in self.world.promises if each.wish.is_needy and each.call is None]
        if (promise := self.at(place, unfollowed)) is not None:
            self.do(self.world.come_back(promise, is_caller=is_caller), then)

    @rule(place=PLACES, then=THEN)
    def delete(self, place: int, then: Then) -> None:
        over = [each for each in self.world.promises if each.is_over]
        if (promise := self.at(place, over or self.world.promises)) is None:
            return

        async def look_and_delete() -> None:
            for each in self.world.runs.of(promise.conversation_id):
                await check_one(self.world, each)
            await self.world.delete(promise.conversation_id)

        self.do(look_and_delete(), then)

    @rule(place=PLACES, what=STEPS, then=THEN)
    def go_on(self, place: int, what: Step, then: Then) -> None:
        self.speak(self.asking(place), what)
        self.do(asyncio.sleep(0), then)

    @rule(place=PLACES, names=CALLS, then=THEN)
    def call_tools(self, place: int, names: list[str], then: Then) -> None:
        self.speak(self.asking(place), names)
        self.do(asyncio.sleep(0), then)

    @rule(place=PLACES, takes_effect=st.sampled_from([True, True, False]), then=THEN)
    def end_call(self, place: int, takes_effect: bool, then: Then) -> None:
        if (call := self.at(place, sorted(self.world.tools.waiting))) is not None:
            self.world.tools.end(call, takes_effect=takes_effect)
            self.do(asyncio.sleep(0), then)

    @rule(place=PLACES, is_yes=st.booleans(), ends=RARELY, then=THEN)
    def answer(self, place: int, is_yes: bool, ends: bool, then: Then) -> None:
        if (asked := self.at(place, self.run(self.world.approvals()))) is None:
            self.speak(self.asking(place), ["pay", "read"])
            self.do(asyncio.sleep(0), then)
            return
        promise, approval = asked

        async def answer() -> None:
            answering = asyncio.create_task(self.world.answer(promise, approval.approval_id, is_yes=is_yes))
            if ends:
                await self.world.cancel(promise)
            await answering

        self.do(answer(), then)

    @rule(place=PLACES, then=THEN)
    def cancel(self, place: int, then: Then) -> None:
        if (promise := self.at(place, self.world.promises)) is not None:
            self.do(self.world.cancel(promise), then)

    @rule()
    def let_time_pass(self) -> None:
        self.do(self.world.let_time_pass(), Then.LOOK)

    @rule(then=THEN)
    def crash(self, then: Then) -> None:
        self.do(self.world.crash(), then)

    @rule(then=THEN)
    def park(self, then: Then) -> None:
        self.do(self.world.park(), then)

    def teardown(self) -> None:
        try:
            self.run(finish(self.world) if self.is_whole else self.world.close())
        finally:
            self.runner.run(self.opened.__aexit__(None, None, None))
            self.runner.close()

    def asking(self, place: int) -> Promise:
        """Return a run whose model waits for what it says; a new one, where there is none."""
        asking = [each for each in self.world.promises if idle_question(self.world, each)]
        if (promise := self.at(place, asking)) is None:
            promise = self.do(self.start_with(Wish("", self.request())), Then.LOOK)
            assert promise is not None
        return promise

    def request(self) -> str:
        return f"request {self.world.new_number()}"

    def speak(self, promise: Promise, what: Step) -> None:
        question = idle_question(self.world, promise)
        if question is None:
            return
        match what:
            case "answer":
                promise.may_end.add(StopReason.ANSWERED)
                question.say(TextChunk("so"), FinishChunk(FinishReason.STOP))
            case "break":
                promise.may_end.add(StopReason.ERROR)
                question.say(ModelError(ErrorKind.UNAVAILABLE, Reason.MODEL_UNAVAILABLE, "gone"))
            case "text":
                question.say(TextChunk("well"))
            case names:
                question.say(tool_calls([(name, self.world.new_number()) for name in names]))

    def do(self, work: Awaitable[T], then: Then) -> T:
        """Do something, and look at all of it where that is wanted."""

        async def done() -> T:
            result = await work
            if then is Then.CRASH:
                await self.world.crash()
            if then is not Then.GO_ON:
                await self.world.settle()
                await check(self.world)
            return result

        return self.run(done())

    def run(self, work: Awaitable[T]) -> T:
        async def awaited() -> T:
            return await work

        try:
            return self.runner.run(awaited())
        except BaseException:
            self.is_whole = False
            raise

    @staticmethod
    def at(place: int, of: "list[T]") -> T | None:
        return of[place % len(of)] if of else None


# A run that is forgotten takes its time to be missed: shrinking takes an hour then, and is for who asks for it.
PHASES = [Phase.generate] + [Phase.shrink] * bool(os.environ.get("PARLEY_TEST_SHRINK"))


def play(fresh_engine: FreshEngine, number: int, examples: int, steps: int) -> None:
    """Play histories; the seed is in the output of a failure."""
    sys.stdout.write(f"seed {number}\n")
    machine = seed(number)(type("History", (History,), {"fresh_engine": staticmethod(fresh_engine)}))
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            phases=PHASES,
            suppress_health_check=list(HealthCheck),
        ),
    )


@asynccontextmanager
async def fresh_sqlite() -> AsyncIterator[Engine]:
    with TemporaryDirectory() as directory:
        yield SqliteEngine(Path(directory) / "parley.db")


def on(postgres: PostgresServer) -> FreshEngine:
    @asynccontextmanager
    async def fresh_postgres() -> AsyncIterator[Engine]:
        async with postgres.database() as url:
            yield PostgresEngine(url)

    return fresh_postgres


def test_any_history_on_sqlite() -> None:
    play(fresh_sqlite, 1, examples=45, steps=16)


def test_any_history_on_postgres(postgres: PostgresServer) -> None:
    play(on(postgres), 2, examples=6, steps=15)


@pytest.mark.soak
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("store", ["sqlite", "postgres"])
def test_many_histories(store: str, request: pytest.FixtureRequest) -> None:
    number = int(os.environ.get("PARLEY_TEST_SEED") or random.SystemRandom().randrange(2**32))
    fresh = fresh_sqlite if store == "sqlite" else on(request.getfixturevalue("postgres"))
    play(fresh, number, examples=300 if store == "sqlite" else 60, steps=50)
