"""A user of a server whose store fails: keeps what he was told, and holds the server to it."""

import subprocess
import sys
from dataclasses import dataclass, field

import grpc
from e2e.conftest import RPC_DEADLINE_S, Stubs, run_spec, watch
from e2e.test_runs import cancel, reason_of, start
from parley.v1 import conversation_service_pb2, run_event_pb2
from run_history import check_run
from server_process import ServerProcess


@dataclass
class Witness:
    """`kept` are the conversations he was told of; `refusals` the reasons why others were refused."""

    stubs: Stubs
    kept: list[str] = field(default_factory=list)
    runs: list[str] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)

    async def write(self) -> bool:
        """Make a conversation; return whether it was made. Any refusal must be UNAVAILABLE."""
        request = conversation_service_pb2.CreateConversationRequest(title="x" * 200)
        try:
            made = await self.stubs.conversations.CreateConversation(request, timeout=RPC_DEADLINE_S)
        except grpc.aio.AioRpcError as error:
            if error.code() != grpc.StatusCode.UNAVAILABLE:
                raise
            # A server that dies says nothing.
            self.refusals.append(reason_of(error) if error.trailing_metadata() else "")
            return False
        self.kept.append(made.conversation.conversation_id)
        return True

    async def begin_run(self) -> None:
        """Begin a run that takes a while."""
        self.runs.append((await start(self.stubs, run_spec("Tell me a story"))).run_id)

    async def read_back(self, stubs: Stubs) -> dict[str, list[run_event_pb2.RunEvent]]:
        """See that all he was told of is there; return his runs' logs, each of them whole."""
        for conversation_id in self.kept:
            await read(stubs, conversation_id)
        for run_id in self.runs:
            # The story would take its time.
            await cancel(stubs, run_id)
        logs = {run_id: await watch(stubs, run_id) for run_id in self.runs}
        for events in logs.values():
            check_run(events)
        return logs


async def read(stubs: Stubs, conversation_id: str) -> None:
    request = conversation_service_pb2.GetConversationRequest(conversation_id=conversation_id)
    assert (await stubs.conversations.GetConversation(request, timeout=RPC_DEADLINE_S)).conversation.etag


def check_database(server: ServerProcess) -> None:
    """See that `db check` finds nothing."""
    command = [sys.executable, "-m", "parley_server", "db", "check", "--data-dir", str(server.data_dir)]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
