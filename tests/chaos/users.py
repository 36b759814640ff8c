"""Users with keys of their own: they start runs, watch, leave, come back, ask twice and cancel, whatever happens."""

import asyncio
import random
from collections.abc import AsyncIterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TypedDict

import grpc
from chaos import model_script
from chaos.history import PASSING, History, Reading, Wish
from chaos.nemesis import Nemesis
from e2e.conftest import Stubs
from parley.v1 import agent_service_pb2, run_pb2

CALL_TIMEOUT_S = 30.0
LABEL = "request"

_P_LEAVE = 0.01  # with every event
_P_FORGET = 0.15  # of those who left
_P_CANCEL = 0.2
_P_CANCEL_NOW = 0.1  # with every event, of those who will
_P_STEER = 0.01  # with every event
_P_OLD_CONVERSATION = 0.5
_P_LOOK_BACK = 0.2
_P_GO_ON = 0.7
_P_WAIT = 0.8
_PAUSE_S = 0.1

_Answers = AsyncIterable[agent_service_pb2.RunAgentResponse] | AsyncIterable[agent_service_pb2.WatchRunResponse]


class _Options(TypedDict):
    timeout: float
    metadata: tuple[tuple[str, str], ...]
    wait_for_ready: bool


@dataclass
class User:
    """One user; `live` until stopped."""

    name: str
    api_key: str
    stubs: Stubs
    history: History
    nemesis: Nemesis
    rng: random.Random
    can_steer: bool

    def __post_init__(self) -> None:
        self.metadata = (("authorization", f"Bearer {self.api_key}"),)
        self._wishes: list[Wish] = []
        self._seen: dict[str, int] = {}

    async def live(self, stop: asyncio.Event) -> None:
        """Want one run after the other."""
        wish = self._wish()
        while not stop.is_set():
            if await self._pursue_once(wish):
                wish = self._wish()
            await asyncio.sleep(self.rng.uniform(0, _PAUSE_S))

    def _how(self) -> _Options:
        """Wait for a server that is down, mostly; else be told so."""
        return {"timeout": CALL_TIMEOUT_S, "metadata": self.metadata, "wait_for_ready": self.rng.random() < _P_WAIT}

    def _wish(self) -> Wish:
        number = len(self._wishes)
        text = model_script.prompt(self.rng.choice(model_script.KINDS), f"{self.name}x{number}")
        old = self._wishes[-3:] if self.rng.random() < _P_OLD_CONVERSATION else []
        conversation = self.rng.choice(old).conversation_id if old else ""
        wish = Wish(self.name, f"{self.name}-{number}", text, conversation)
        self._wishes.append(wish)
        self.history.wishes.append(wish)
        return wish

    async def _pursue_once(self, wish: Wish) -> bool:
        """Do the next thing about a wish; tell whether no more is to be done."""
        try:
            if not wish.run_id:
                return await self._begin(wish)
            if self.rng.random() < _P_LOOK_BACK:
                await self._look_back()
            return await self._watch(wish)
        except grpc.aio.AioRpcError as error:
            return error.code() not in PASSING

    async def _begin(self, wish: Wish) -> bool:
        if self.rng.random() < 0.5:
            await self._start(wish)
            return False
        request = agent_service_pb2.RunAgentRequest(run=_spec(wish), request_id=wish.request_id)
        call = self.stubs.agents.RunAgent(request, **self._how())
        with self.history.operation(self.name, "RunAgent", wish.request_id) as reading, _cancelling(call):
            return await self._read(call, wish, reading)

    async def _start(self, wish: Wish) -> None:
        request = agent_service_pb2.StartRunRequest(run=_spec(wish), request_id=wish.request_id)
        with self.history.operation(self.name, "StartRun", wish.request_id):
            answer = await self.stubs.agents.StartRun(request, **self._how())
        _acknowledge(wish, answer.run.run_id, answer.run.conversation_id)

    async def _look_back(self) -> None:
        """Ask once more for what was acknowledged before; it is the same run."""
        await self._start(self.rng.choice([wish for wish in self._wishes if wish.run_id]))

    async def _watch(self, wish: Wish) -> bool:
        """Go on where the last reading ended, or begin anew: another device may have seen less."""
        after_seq = self._seen.get(wish.run_id, 0) if self.rng.random() < _P_GO_ON else 0
        request = agent_service_pb2.WatchRunRequest(run_id=wish.run_id, after_seq=after_seq)
        call = self.stubs.agents.WatchRun(request, **self._how())
        with self.history.operation(self.name, "WatchRun", wish.run_id) as reading, _cancelling(call):
            reading.after_seq = after_seq
            return await self._read(call, wish, reading)

    async def _read(self, answers: _Answers, wish: Wish, reading: Reading) -> bool:
        """Read until the end, or until bored; tell whether that was all."""
        cancels = self.rng.random() < _P_CANCEL
        async for answer in answers:
            event = answer.event
            if not event.seq:
                continue
            reading.events.append(event)
            _acknowledge(wish, event.run_id, event.conversation_id)
            self._seen[event.run_id] = max(event.seq, self._seen.get(event.run_id, 0))
            self.nemesis.notice(event.WhichOneof("event") or "")
            if cancels and self.rng.random() < _P_CANCEL_NOW:
                await self._cancel(wish)
                cancels = False
            if self.can_steer and self.rng.random() < _P_STEER:
                await self._steer(wish)
            if self.rng.random() < _P_LEAVE:
                return self.rng.random() < _P_FORGET
        reading.is_whole = True
        return True

    async def _cancel(self, wish: Wish) -> None:
        request = agent_service_pb2.CancelRunRequest(run_id=wish.run_id, reason="chaos")
        with _carrying_on(), self.history.operation(self.name, "CancelRun", wish.run_id):
            answer = await self.stubs.agents.CancelRun(request, **self._how())
            # A cancel that comes too late is no error; then the run is at its end already.
            wish.cancel_confirmed |= answer.run.state in (run_pb2.RUN_STATE_CANCELLING, run_pb2.RUN_STATE_CANCELLED)
            self.nemesis.notice("cancel_confirmed")

    async def _steer(self, wish: Wish) -> None:
        """Say the same again in the middle of it; or, where that was not confirmed, ask whether it was heard."""
        open_ids = [request_id for request_id, steer_id in wish.steers.items() if not steer_id]
        request_id = open_ids[0] if open_ids else f"{wish.request_id}-{len(wish.steers)}"
        wish.steers[request_id] = ""
        request = agent_service_pb2.SteerRunRequest(run_id=wish.run_id, request_id=request_id)
        request.input.add(text=wish.prompt)
        with _carrying_on(), self.history.operation(self.name, "SteerRun", wish.run_id):
            answer = await self.stubs.agents.SteerRun(request, **self._how())
            wish.steers[request_id] = answer.steer_id
            self.nemesis.notice("steer_confirmed")


def _spec(wish: Wish) -> run_pb2.RunSpec:
    spec = run_pb2.RunSpec(conversation_id=wish.in_conversation, labels={LABEL: wish.request_id})
    spec.input.add(text=wish.prompt)
    return spec


def _acknowledge(wish: Wish, run_id: str, conversation_id: str) -> None:
    if run_id not in wish.run_ids:
        wish.run_ids.append(run_id)
    wish.conversation_id = conversation_id


def _carrying_on() -> suppress:
    """Let a call fail without its reader's stream; the history has it."""
    return suppress(grpc.aio.AioRpcError)


@contextmanager
def _cancelling(call: grpc.aio.Call) -> Iterator[None]:
    """End a stream with its block: dropped, it would go on."""
    try:
        yield
    finally:
        call.cancel()
