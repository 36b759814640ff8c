"""The offline model as a program of its own."""

import asyncio
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import structlog

from parley_server.llm.offline.recorder import Recorder
from parley_server.llm.offline.script import Script, load_script
from parley_server.llm.offline.server import OfflineModelServer

_log = structlog.get_logger(__name__)


def run_offline_model(listen: str, script_path: Path | None = None) -> None:
    """Serve a script (by default the shipped one) on `HOST:PORT` until interrupted; logs the base URL it listens on.

    Raises:
        ValueError: `listen` is not HOST:PORT.
        ScriptError: the script is none.
        OSError: the script cannot be read, or the address cannot be had.
    """
    host, port = parse_listen(listen)
    script = load_script(script_path)
    with suppress(KeyboardInterrupt):
        asyncio.run(_serve(script, host, port))


def parse_listen(listen: str) -> tuple[str, int]:
    """Read `HOST:PORT` or `[IPV6]:PORT`; port 0 takes a free one. Raises ValueError."""
    parts = urlsplit(f"//{listen}")
    if parts.netloc != listen or not parts.hostname or parts.port is None or parts.username is not None:
        raise ValueError(f"not HOST:PORT: {listen!r}")
    return parts.hostname, parts.port


def run_recorder(listen: str, upstream_url: str, script_path: Path) -> None:
    """Record what the server at `upstream_url` answers into a script until interrupted; logs the base URL to ask.

    Raises:
        ValueError: `listen` is not HOST:PORT.
        ScriptError: the script is there and is none.
        OSError: the script cannot be read, or the address cannot be had.
    """
    host, port = parse_listen(listen)
    recorder = Recorder(upstream_url, script_path, host, port)
    with suppress(KeyboardInterrupt):
        asyncio.run(_record(recorder))


async def _record(recorder: Recorder) -> None:
    async with recorder:
        _log.info("recording", base_url=recorder.base_url)
        await asyncio.Event().wait()


async def _serve(script: Script, host: str, port: int) -> None:
    async with OfflineModelServer(script, host, port) as server:
        _log.info("offline_model_listening", base_url=server.base_url)
        await asyncio.Event().wait()
