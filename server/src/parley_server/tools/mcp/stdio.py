"""MCP on the standard input and output of a program that this server starts, bounds and ends."""

import asyncio
import os
import signal
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import anyio
import structlog
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.client._transport import TransportStreams
from mcp.client.stdio import get_default_environment
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCRequest, jsonrpc_message_adapter

from parley_server.tools.mcp.intake import Incoming
from parley_server.tools.mcp.program_log import ProgramLog

MAX_MESSAGE_BYTES = 8 * 1024 * 1024
# Banners and the like, which some programs print where they must not.
MAX_STRAY_LINES = 100
EXIT_PATIENCE_S = 2.0
_POLL_S = 0.02
_CHUNK_BYTES = 64 * 1024

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Program:
    """What to start; `env` comes on top of the few variables that any program needs."""

    server: str
    command: str
    args: Sequence[str]
    env: Mapping[str, str]
    cwd: str = ""


@asynccontextmanager
async def stdio_transport(program: Program, log: ProgramLog) -> AsyncIterator[TransportStreams]:
    """Start a program, and end it with all that it has started when the block ends.

    Raises:
        OSError: it cannot be started.
    """
    process = await _started(program)
    incoming, to_client = anyio.create_memory_object_stream[Incoming](0)
    from_client, outgoing = anyio.create_memory_object_stream[SessionMessage](0)
    pumps = [
        asyncio.create_task(_read(process, incoming, program.server)),
        asyncio.create_task(_write(process, outgoing, incoming, log)),
        asyncio.create_task(log.follow(_pipe(process.stderr))),
    ]
    try:
        yield to_client, from_client
    finally:
        to_client.close()
        from_client.close()
        await _through(asyncio.create_task(_ended(process, pumps)))


async def _started(program: Program) -> Process:
    """Start a program. Half a start cannot be taken back, so one that is cancelled is finished and ended."""
    starting = asyncio.create_task(
        asyncio.create_subprocess_exec(
            program.command,
            *program.args,
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            limit=MAX_MESSAGE_BYTES,
            env=get_default_environment() | dict(program.env),
            cwd=program.cwd or None,
            # Its process group is what is ended.
            start_new_session=True,
        )
    )
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:
        await _through(asyncio.create_task(_taken_back(starting)))
        raise


async def _taken_back(starting: asyncio.Task[Process]) -> None:
    with suppress(OSError):
        await _ended(await starting, ())


def _pipe(stream: asyncio.StreamReader | None) -> asyncio.StreamReader:
    if stream is None:
        raise RuntimeError("the program was started without a pipe")
    return stream


async def _read(process: Process, incoming: MemoryObjectSendStream[Incoming], server: str) -> None:
    """Hand over what the program says until it breaks the rules, and let the rest pass by: else it could not end."""
    stdout = _pipe(process.stdout)
    with incoming, suppress(anyio.BrokenResourceError):
        await _hand_over(stdout, incoming, server)
    while await stdout.read(_CHUNK_BYTES):
        pass


async def _hand_over(stdout: asyncio.StreamReader, incoming: MemoryObjectSendStream[Incoming], server: str) -> None:
    """Hand over one message a line; a line that is too long, or too many that say nothing, end it."""
    stray = 0
    while stray <= MAX_STRAY_LINES:
        try:
            line = await stdout.readuntil(b"\n")
        except asyncio.IncompleteReadError:
            return
        except asyncio.LimitOverrunError:
            _log.warning("mcp_message_too_long", server=server, max_bytes=MAX_MESSAGE_BYTES)
            return
        if (message := _message(line)) is not None:
            await incoming.send(message)
        elif line.strip():
            stray += 1
    _log.warning("mcp_server_speaks_no_mcp", server=server, stray_lines=stray)


def _message(line: bytes) -> SessionMessage | None:
    try:
        return SessionMessage(jsonrpc_message_adapter.validate_json(line, by_name=False))
    except ValueError:
        return None


async def _write(
    process: Process,
    outgoing: MemoryObjectReceiveStream[SessionMessage],
    incoming: MemoryObjectSendStream[Incoming],
    log: ProgramLog,
) -> None:
    stdin = process.stdin
    if stdin is None:
        raise RuntimeError("the program was started without a pipe")
    with outgoing, suppress(OSError):
        async for each in outgoing:
            if isinstance(each.message, JSONRPCRequest) and each.message.method == "tools/call":
                # What it writes from now on may hold what a user says.
                log.close()
            stdin.write(each.message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n")
            await stdin.drain()
        return
    # It takes nothing any more, so that nobody should wait for its answers.
    incoming.close()


async def _ended(process: Process, pumps: Sequence[asyncio.Task[None]]) -> None:
    """End a program: by the end of its input, else by SIGTERM, else by SIGKILL; the latter for whatever it left."""
    if process.stdin is not None:
        process.stdin.close()
    if not await _exits(process):
        _signal_group(process, signal.SIGTERM)
        await _exits(process)
    _signal_group(process, signal.SIGKILL)
    if not await _exits(process):
        _log.error("mcp_program_not_ended", pid=process.pid)
    if pumps:
        # What it has started, and has left its group, may hold the pipes open.
        _, stuck = await asyncio.wait(pumps, timeout=EXIT_PATIENCE_S)
        for pump in stuck:
            pump.cancel()


async def _through(ending: asyncio.Task[None]) -> None:
    """Wait for the end of a task, also when this is cancelled meanwhile: else the program would stay."""
    is_cancelled = False
    while not ending.done():
        try:
            await asyncio.shield(ending)
        except asyncio.CancelledError:
            is_cancelled = True
    if is_cancelled:
        raise asyncio.CancelledError
    ending.result()


async def _exits(process: Process) -> bool:
    # Process.wait() also waits for the end of the pipes, which what it has started may hold open.
    with suppress(TimeoutError):
        async with asyncio.timeout(EXIT_PATIENCE_S):
            while process.returncode is None:  # noqa: ASYNC110  # see above
                await asyncio.sleep(_POLL_S)
    return process.returncode is not None


def _signal_group(process: Process, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
