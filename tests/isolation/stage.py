"""Where it is played: a real server in a process of its own, a model behind it, and all that either of them writes."""

import asyncio
import contextlib
import json
import re
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import grpc
from catalogue.door import Caller
from isolation.audit_entries import AuditEntries
from isolation.canary import canary, has_token, owners_in, signature
from isolation.cast import Cast, Speaker, make_cast
from isolation.delegates import Delegates
from isolation.echo_model import EchoModel
from isolation.host_calls import HostCallJudge
from isolation.hosts import Holds, serving_hosts
from isolation.recording_tools import RECORD, SLOT
from isolation.tokens import TokenReader
from isolation.world import World
from parley.v1 import delegation_service_pb2 as delegation
from server_process import ServerProcess

_PROGRAM = (sys.executable, str(Path(__file__).with_name("planted_server.py")))
# How long a stream may go on without another look at its credential.
RECHECK_S = 0.1
_ENVIRONMENT = {
    "PARLEY_TOOLS__MODULES": "isolation.recording_tools",
    "PARLEY_MODEL__API_KEY": "none",
    "PARLEY_MODEL__NAME": "echo",
    "PARLEY_SERVER__DRAIN_GRACE_S": "0.2",
    "PARLEY_LOG__FORMAT": "json",
    # Those who come with what is over come often.
    "PARLEY_AUTH__MAX_FAILURES_PER_MINUTE": "1000",
    "PARLEY_AUTH__RECHECK_S": str(RECHECK_S),
}
# What a log may have of a request: the name that the caller gave it.
_LOGGED_NAME = re.compile(rb'"request_id": ?"[^"]*"')
# So many of the calls are made by those who act for users by tokens.
_DELEGATED = 0.35
_CHANNEL_OPTIONS = (("grpc.use_local_subchannel_pool", 1),)


@dataclass
class Stage:
    """An open stage. `plant` names the leak that its server has; `jitter` seeds how its tasks are held up."""

    server: ServerProcess
    world: World
    channel: grpc.aio.Channel
    delegates: Delegates
    hosts: HostCallJudge
    holds: Holds
    audit: AuditEntries = field(default_factory=AuditEntries)
    casts: int = 0
    _read: dict[Path, int] = field(default_factory=dict)

    async def cast(self, random: Random) -> Cast:
        """Bring on users that nobody has heard of, each with a secret for his tools."""
        self.casts += 1
        cast = await make_cast(self.channel, self.casts)
        # Whoever revokes a key must not take away those that the play is played with.
        self.world.reserved |= {speaker.key_id for speaker in (*cast.speakers.values(), *cast.lent.values())}
        for owner in cast.owners:
            self.give_secret(owner, random)
        return cast

    def give_secret(self, user_id: str, random: Random) -> None:
        """Store a secret of a user's for his tools."""
        secret = canary(user_id, random)
        self.world.secrets.add(secret)
        own = self.server.data_dir / "credentials" / user_id.replace(":", "%3a")
        own.mkdir(parents=True, exist_ok=True, mode=0o700)
        (own / SLOT).write_text(secret, encoding="utf-8")
        (own / SLOT).chmod(0o600)

    def who_calls(self, cast: Cast, random: Random) -> Speaker:
        """Choose one who has a key, or one who acts for such a user by a token."""
        delegate = self.delegates.pick(random, cast.owners) if random.random() < _DELEGATED else None
        return delegate or cast.anybody(random)

    async def restart(self, *, kill: bool) -> None:
        """End the server, as a crash does or as an operator, and start it again on the same data."""
        await self.channel.close()
        await asyncio.to_thread(self.server.kill if kill else self.server.stop)
        await asyncio.to_thread(self.server.start)
        self.channel = grpc.aio.insecure_channel(self.server.address, options=_CHANNEL_OPTIONS)

    def look_around(self) -> None:
        """Look through what the server and its tools have written since the last time."""
        for line in self._news(self.server.data_dir / "test-server.log"):
            self.world.scanned_bytes["log"] += len(line)
            for _, word in owners_in(_LOGGED_NAME.sub(b"", line)):
                self.world.leak("log", f"has {word}: {line.decode(errors='replace')[:300]}")
            if has_token(line):
                self.world.leak("log", f"has a token: {line.decode(errors='replace')[:300]}")
            if b'"internal_error"' in line or b"Traceback" in line:
                self.world.fault(line.decode(errors="replace")[:500])
        for line in self._news(self.server.data_dir / RECORD):
            self._judge_call(line)
        self.hosts.look_again()

    def _judge_call(self, line: bytes) -> None:
        """Hold a tool's call to the user it was made for: words, secret and context are his."""
        call = json.loads(line)
        self.world.scanned_bytes["tool"] += len(line)
        user_id = call["user_id"]
        for owner, word in owners_in(line):
            if owner != user_id:
                self.world.leak("tool call", f"{call['tool']} for {user_id} is given {word}")
        if " ".join(call["actors"]) != call["said_actors"]:
            self.world.leak("tool call", f"{call['tool']} for {user_id} is called by {call['actors']}")
        if call["secret_of"] not in {"", signature(user_id)}:
            self.world.leak("tool call", f"{call['tool']} for {user_id} is given the secret of {call['secret_of']}")
        run = self.world.things.get(call["run_id"])
        if run is not None and run.owner != user_id:
            self.world.leak("tool call", f"{call['tool']} in a run of {run.owner}'s is made for {user_id}")

    def _news(self, path: Path) -> list[bytes]:
        """Return the whole lines that a file has got."""
        if not path.exists():
            return []
        with path.open("rb") as file:
            file.seek(self._read.get(path, 0))
            whole, end, _ = file.read().rpartition(b"\n")
        self._read[path] = self._read.get(path, 0) + len(whole) + len(end)
        return whole.split(b"\n") if whole else []


@contextlib.asynccontextmanager
async def open_stage(
    data_dir: Path, environment: Mapping[str, str] | None = None, *, plant: str = "", jitter: int = 0
) -> AsyncIterator[Stage]:
    """Serve for a block."""
    world = World()
    delegates = Delegates()
    hosts, holds = HostCallJudge(world, delegates), Holds()
    async with EchoModel(world) as model, serving_hosts(hosts.take, holds) as settings_of_hosts:
        added = {
            **_ENVIRONMENT,
            "PARLEY_MODEL__BASE_URL": model.base_url,
            **settings_of_hosts,
            "CANARY_PLANT": plant,
            "CANARY_JITTER": str(jitter),
            **(environment or {}),
        }
        server = ServerProcess(data_dir, environment=added, program=_PROGRAM)
        await asyncio.to_thread(server.start)
        channel = grpc.aio.insecure_channel(server.address, options=_CHANNEL_OPTIONS)
        stage = Stage(server, world, channel, delegates, hosts, holds)
        try:
            keys = delegation.ListDelegationKeysRequest()
            hosts.reader = TokenReader((await Caller(channel).ask(keys, delegation.ListDelegationKeysResponse)).keys)
            yield stage
        finally:
            await stage.channel.close()
            await asyncio.to_thread(server.kill)
