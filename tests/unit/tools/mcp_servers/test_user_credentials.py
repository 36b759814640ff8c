"""Whose secrets an MCP server is given, and that nobody's client has another's."""

import asyncio
import random
from pathlib import Path

from parley_server.tools.mcp.source import mcp_sources
from parley_server.tools.source import published
from pydantic import SecretStr
from unit.tools.mcp_servers.mcp_world import World, is_alive, open_world, raw_settings, until

USERS = ("ann", "ben", "cleo", "dan")
ENV = {"user_env": {"TOKEN": "Bearer {github}"}}


async def token_of(world: World, user_id: str) -> object:
    environment = (await world.said("env", user_id))["environment"]
    assert isinstance(environment, dict)
    return environment.get("TOKEN")


async def test_no_user_ever_meets_anothers_secret(tmp_path: Path) -> None:
    async with open_world(tmp_path, raw_settings(tmp_path, **ENV)) as world:
        for user in USERS:
            world.credentials.put(user, "github", SecretStr(f"secret of {user}"))
        asked = random.Random(7).choices(USERS, k=200)
        tokens = await asyncio.gather(*(token_of(world, user) for user in asked))
    assert tokens == [f"Bearer secret of {user}" for user in asked]


async def test_a_secret_that_is_changed_counts_at_once(tmp_path: Path) -> None:
    async with open_world(tmp_path, raw_settings(tmp_path, **ENV)) as world:
        for secret in ("first", "second", "first"):
            world.credentials.put("ann", "github", SecretStr(secret))
            assert await token_of(world, "ann") == f"Bearer {secret}"
        assert len([line for line in world.log if line.startswith("started")]) == 3


async def test_without_a_secret_there_is_no_call_and_no_program(tmp_path: Path) -> None:
    async with open_world(tmp_path, raw_settings(tmp_path, **ENV)) as world:
        assert (await world.error("env")).code == "credential_missing"
        assert len([line for line in world.log if line.startswith("started")]) == 1


async def test_the_tools_are_listed_without_a_secret_or_with_that_of_a_user_who_is_named(tmp_path: Path) -> None:
    for settings, seen in ((ENV, "None"), ({**ENV, "list_as": "ann"}, "Bearer of ann")):
        async with open_world(tmp_path, raw_settings(tmp_path, **settings)) as world:
            await world.tool("env")
            world.credentials.put("ann", "github", SecretStr("of ann"))
        async with open_world(tmp_path, raw_settings(tmp_path, **settings)) as world:
            await world.logged(f"listed with {seen}")


async def test_the_client_of_a_user_who_is_erased_is_closed_and_no_other(tmp_path: Path) -> None:
    world = World(tmp_path)
    [source] = mcp_sources({"raw": raw_settings(tmp_path, **ENV)}, tmp_path, world.credentials)
    async with published([source], world.registry):
        for user in ("ann", "ben"):
            world.credentials.put(user, "github", SecretStr(f"secret of {user}"))
        hers, his = [(await world.said("env", user))["pid"] for user in ("ann", "ben")]
        source.forget("ann")
        await until(lambda: not is_alive(hers))
        assert (await world.said("env", "ben"))["pid"] == his
        assert (await world.said("env", "ann"))["pid"] != hers
