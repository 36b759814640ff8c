"""One round of chaos: a fresh server, users, so many kills, and the verdict."""

import asyncio
import random
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from chaos import model_script
from chaos.aftermath import Aftermath, look
from chaos.effects import FOLDER_VARIABLE, Effect, World
from chaos.history import History
from chaos.nemesis import POINTS, Nemesis
from chaos.power_cut import PowerCut
from chaos.server_under_test import ServerUnderTest, StartFailedError
from chaos.users import User
from chaos.verdict import violations
from e2e.conftest import stubs_on
from model_server import ModelServer
from parley.v1 import admin_service_pb2, api_key_service_pb2, api_key_service_pb2_grpc
from postgres_server import PostgresServer

# Reconnecting must not take longer than the server lives.
_CHANNEL = [
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 100),
    ("grpc.use_local_subchannel_pool", 1),
]
# What a log of a server that was only killed has no reason for.
_TROUBLE = re.compile(r'"level": "(error|critical)"|Traceback')


@dataclass(frozen=True)
class Plan:
    """What a round is: `postgres` is the server to use instead of SQLite; every kill is a power cut where wanted."""

    kills: int
    seed: str
    users: int = 8
    postgres: PostgresServer | None = None
    power_cuts: bool = False
    twin: str = ""
    points: Sequence[str] = POINTS


@dataclass
class Round:
    """What came of a round."""

    history: History = field(default_factory=History)
    aftermath: Aftermath = field(default_factory=Aftermath)
    effects: Sequence[Effect] = ()
    start_s: list[float] = field(default_factory=list)
    lost_writes: int = 0
    violations: list[str] = field(default_factory=list)


async def play(plan: Plan, folder: Path) -> Round:
    """Play a round in an empty folder."""
    played = Round()
    world = World(folder)
    async with _server(plan, folder) as server:
        nemesis = Nemesis(server, world, played.history, random.Random(f"{plan.seed} nemesis"), plan.points)
        try:
            await _play_on(plan, server, nemesis, played)
        except StartFailedError as error:
            played.violations.append(f"the server did not start again: {error}")
        played.start_s = server.start_s
        played.lost_writes = server.lost_writes
        played.violations += [line for line in server.log.splitlines() if _TROUBLE.search(line)]
    played.effects = world.effects()
    return played


async def _play_on(plan: Plan, server: ServerUnderTest, nemesis: Nemesis, played: Round) -> None:
    await nemesis.kill_first_start()
    await server.start()
    async with AsyncExitStack() as stack:
        users = [await _user(number, plan, nemesis, stack) for number in range(plan.users)]
        if plan.power_cuts:
            # What a twin acknowledges from now on is to be lost, and not the keys, without which nothing is.
            await server.stop()
            await server.start()
        stop = asyncio.Event()
        living = [asyncio.create_task(user.live(stop)) for user in users]
        try:
            await nemesis.rage(plan.kills)
        finally:
            stop.set()
            await asyncio.gather(*living)
        played.aftermath = await look(users)
    played.violations += violations(played.history, played.aftermath, nemesis.world.effects())


async def _user(number: int, plan: Plan, nemesis: Nemesis, stack: AsyncExitStack) -> User:
    """Make a user with a key and a connection of his own."""
    name = f"u{number}"
    channel = await stack.enter_async_context(grpc.aio.insecure_channel(nemesis.server.address, options=_CHANNEL))
    keys: api_key_service_pb2_grpc.ApiKeyServiceAsyncStub = api_key_service_pb2_grpc.ApiKeyServiceStub(channel)
    made = await keys.CreateApiKey(api_key_service_pb2.CreateApiKeyRequest(user_id=name), timeout=30)
    rng = random.Random(f"{plan.seed} {name}")
    stubs = stubs_on(channel)
    info = await stubs.admin.GetServerInfo(admin_service_pb2.GetServerInfoRequest(), timeout=30)
    return User(name, made.secret, stubs, nemesis.history, nemesis, rng, "steer_run" in info.features)


@asynccontextmanager
async def _server(plan: Plan, folder: Path) -> AsyncIterator[ServerUnderTest]:
    """Make the server, with its model beside it, out of reach of the kills."""
    async with AsyncExitStack() as stack:
        model = await stack.enter_async_context(ModelServer(model_script.script()))
        environment = {
            FOLDER_VARIABLE: str(folder),
            "PARLEY_MODEL__BASE_URL": model.base_url,
            "PARLEY_MODEL__NAME": "scripted",
        }
        if plan.postgres:
            environment["PARLEY_STORAGE__URL"] = await stack.enter_async_context(plan.postgres.database())
        power_cut = None
        if plan.power_cuts:
            power_cut = PowerCut(folder / "data", folder / "cut", random.Random(f"{plan.seed} cut"))
        yield await stack.enter_async_context(ServerUnderTest(folder, environment, plan.twin, power_cut))
