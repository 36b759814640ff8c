"""The engine against whatever may happen to it, in any order, on every engine of the store.

A failure prints its seed and the steps. The soak takes seeds of its own: PARLEY_TEST_SEED=N plays one again.
"""

import asyncio
import os
import random
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple, TypeVar

import pytest
from contract.recovery.run_world import Promise, RunWorld, idle_question, tool_calls
from contract.storage.engines import Engine, PostgresEngine, SqliteEngine
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from parley_server.domain.errors import ErrorKind, Reason
from parley_server.domain.run import ConcurrencyPolicy, RunState
from parley_server.llm.model_service import FinishChunk, FinishReason, ModelError, TextChunk
from parley_server.rpc.mapping.run_event import ProtoEventCodec
from parley_server.storage.sql.store import SqlStore, open_store
from postgres_server import PostgresServer

T = TypeVar("T")
FreshEngine = Callable[[], AbstractAsyncContextManager[Engine]]

PLACES = st.integers(0, 7)
POLICIES = st.sampled_from([ConcurrencyPolicy.QUEUE, ConcurrencyPolicy.QUEUE, ConcurrencyPolicy.REJECT])
Step = str | list[str]
CALLS = st.lists(st.sampled_from(["read", "put", "book"]), min_size=1, max_size=3)
STEPS = st.sampled_from(["text", "answer", "break"])
# Most steps are looked at; after the others the next thing happens at once.
SETTLES = st.sampled_from([True, True, False])


class Wish(NamedTuple):
    """What a start asked for, to be asked for again."""

    conversation_id: str
    policy: ConcurrencyPolicy
    request_id: str
    is_short: bool


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
        self.wishes: list[tuple[Wish, Promise]] = []

    @initialize()
    def begin(self) -> None:
        engine = self.run(self.opened.__aenter__())

        @asynccontextmanager
        async def opening() -> AsyncIterator[SqlStore]:
            async with engine.open() as database, open_store(database, ProtoEventCodec(), b"page token key") as store:
                yield store

        self.world = RunWorld(opening)
        self.run(self.world.begin())

    @rule(
        place=PLACES,
        is_new=st.booleans(),
        policy=POLICIES,
        is_short=st.sampled_from([False, False, False, True]),
        settles=SETTLES,
    )
    def start(self, place: int, is_new: bool, policy: ConcurrencyPolicy, is_short: bool, settles: bool) -> None:
        earlier = None if is_new else self.at(place, self.world.promises)
        wish = Wish(earlier.conversation_id if earlier else "", policy, f"request {self.world.new_number()}", is_short)
        self.do(self.start_with(wish), settles)

    async def start_with(self, wish: Wish) -> Promise | None:
        promise = await self.world.start(*wish[:3], is_short=wish.is_short)
        if promise is not None:
            self.wishes.append((wish, promise))
        return promise

    @rule(place=PLACES, settles=SETTLES)
    def start_again(self, place: int, settles: bool) -> None:
        if (found := self.at(place, self.wishes)) is not None:
            wish, promise = found
            assert self.do(self.world.start(*wish[:3], is_short=wish.is_short), settles) is promise

    @rule(place=PLACES, ends=st.booleans(), delay_ms=st.integers(0, 4))
    def start_while_another_ends(self, place: int, ends: bool, delay_ms: int) -> None:
        promise = self.at(place, [each for each in self.world.promises if not each.is_over])
        if promise is None:
            return

        async def race() -> None:
            starting = asyncio.create_task(self.start_with(self.wish(promise.conversation_id)))
            await asyncio.sleep(delay_ms / 1000)
            if ends:
                self.speak(promise, "answer")
            else:
                await self.world.cancel(promise)
            await starting

        self.do(race(), settles=True)

    @rule(place=PLACES, what=STEPS, settles=SETTLES)
    def go_on(self, place: int, what: Step, settles: bool) -> None:
        self.speak(self.asking(place), what)
        self.do(asyncio.sleep(0), settles)

    @rule(place=PLACES, names=CALLS, settles=SETTLES)
    def call_tools(self, place: int, names: list[str], settles: bool) -> None:
        self.speak(self.asking(place), names)
        self.do(asyncio.sleep(0), settles)

    @rule(place=PLACES, takes_effect=st.sampled_from([True, True, False]), settles=SETTLES)
    def end_call(self, place: int, takes_effect: bool, settles: bool) -> None:
        if (call := self.at(place, sorted(self.world.tools.waiting))) is not None:
            self.world.tools.end(call, takes_effect=takes_effect)
            self.do(asyncio.sleep(0), settles)

    @rule(place=PLACES, settles=SETTLES)
    def cancel(self, place: int, settles: bool) -> None:
        if (promise := self.at(place, self.world.promises)) is not None:
            self.do(self.world.cancel(promise), settles)

    @rule()
    def let_deadlines_pass(self) -> None:
        self.do(self.world.outlast_deadlines(), settles=True)

    @rule(settles=SETTLES)
    def crash(self, settles: bool) -> None:
        self.do(self.world.crash(), settles)

    @rule(settles=SETTLES)
    def park(self, settles: bool) -> None:
        self.do(self.world.park(), settles)

    def teardown(self) -> None:
        try:
            self.run(self.world.end() if self.is_whole else self.world.close())
        finally:
            self.runner.run(self.opened.__aexit__(None, None, None))
            self.runner.close()

    def asking(self, place: int) -> Promise:
        """Return a run whose model waits for what it says; a new one, where there is none."""
        asking = [each for each in self.world.promises if idle_question(self.world, each)]
        if (promise := self.at(place, asking)) is None:
            promise = self.do(self.start_with(self.wish()), settles=True)
            assert promise is not None
        return promise

    def wish(self, conversation_id: str = "") -> Wish:
        return Wish(conversation_id, ConcurrencyPolicy.QUEUE, f"request {self.world.new_number()}", False)

    def speak(self, promise: Promise, what: Step) -> None:
        question = idle_question(self.world, promise)
        if question is None:
            return
        match what:
            case "answer":
                promise.may_end.add(RunState.SUCCEEDED)
                question.say(TextChunk("so"), FinishChunk(FinishReason.STOP))
            case "break":
                promise.may_end.add(RunState.FAILED)
                question.say(ModelError(ErrorKind.UNAVAILABLE, Reason.MODEL_UNAVAILABLE, "gone"))
            case "text":
                question.say(TextChunk("well"))
            case names:
                question.say(tool_calls([(name, self.world.new_number()) for name in names]))

    def do(self, work: Awaitable[T], settles: bool) -> T:
        """Do something, and look at all of it where that is wanted."""

        async def done() -> T:
            result = await work
            if settles:
                await self.world.settle()
                await self.world.check()
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
            # A run that is forgotten takes its time to be missed: shrinking would take an hour.
            phases=[Phase.generate],
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
    play(fresh_sqlite, 1, examples=30, steps=30)


def test_any_history_on_postgres(postgres: PostgresServer) -> None:
    play(on(postgres), 2, examples=4, steps=20)


@pytest.mark.soak
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("store", ["sqlite", "postgres"])
def test_many_histories(store: str, request: pytest.FixtureRequest) -> None:
    number = int(os.environ.get("PARLEY_TEST_SEED") or random.SystemRandom().randrange(2**32))
    fresh = fresh_sqlite if store == "sqlite" else on(request.getfixturevalue("postgres"))
    play(fresh, number, examples=300 if store == "sqlite" else 60, steps=50)
