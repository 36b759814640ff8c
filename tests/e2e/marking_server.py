"""A parley-server whose agent has three tools more, one of each effect, that leave lines in the file MARKS_FILE.

    python marking_server.py serve --listen ADDRESS --data-dir DIRECTORY

Asked to, a tool kills its own process, once: `moment` is `before` its effect or `after` it.
"""

import argparse
import asyncio
import os
import signal
from pathlib import Path
from typing import Literal

from parley_server.app import serve
from parley_server.domain.tool import ToolEffect
from parley_server.logs import configure_logging
from parley_server.settings import load_settings
from parley_server.signals import ProcessSignals
from parley_server.tools.tool import ToolContext, tool
from pydantic import BaseModel, ConfigDict

_MARKS = Path(os.environ["MARKS_FILE"])


class Wish(BaseModel):
    model_config = ConfigDict(extra="forbid")
    moment: Literal["never", "before", "after", "slowly"] = "never"


class Done(BaseModel):
    done: bool = True


@tool(effect=ToolEffect.READ)
async def read(context: ToolContext, arguments: Wish) -> Done:
    """Look."""
    return await _do("read", context, arguments)


@tool(effect=ToolEffect.IDEMPOTENT)
async def put(context: ToolContext, arguments: Wish) -> Done:
    """Set something to what it may be already."""
    return await _do("put", context, arguments)


@tool(effect=ToolEffect.WRITE)
async def book(context: ToolContext, arguments: Wish) -> Done:
    """Do something that must not be done twice."""
    return await _do("book", context, arguments)


async def _do(name: str, context: ToolContext, wish: Wish) -> Done:
    _die_at("before", wish)
    if wish.moment == "slowly":
        _mark("begun -")
        await context.cancelled.wait()
    _mark(f"{name} {context.idempotency_key}")
    _die_at("after", wish)
    return Done()


def _die_at(moment: str, wish: Wish) -> None:
    if wish.moment == moment and not (_MARKS.exists() and "died" in _MARKS.read_text()):
        _mark("died -")
        os.kill(os.getpid(), signal.SIGKILL)


def _mark(line: str) -> None:
    with _MARKS.open("a", encoding="utf-8") as marks:
        marks.write(f"{line}\n")


def main() -> None:
    signals = ProcessSignals()
    signals.catch()
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=["serve"])
    parser.add_argument("--listen", required=True)
    parser.add_argument("--data-dir", type=Path, required=True)
    arguments = parser.parse_args()
    settings = load_settings(config=None, data_dir=arguments.data_dir, flags={("server", "listen"): arguments.listen})
    asyncio.run(serve(settings, signals, configure_logging(settings.log), [read, put, book]))


if __name__ == "__main__":
    main()
