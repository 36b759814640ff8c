"""Starts real servers fast: a process that has imported everything, and forks one server after the other.

    python -m chaos.nursery --listen ADDRESS --data-dir DIRECTORY --log FILE [--twin NAME]

For every line on its standard input it begins a server and writes its process id; when that has ended, `ended`. So a
restart takes what the server's own start takes, without the second that Python needs to read its modules.
"""

import argparse
import asyncio
import os
import sys
from pathlib import Path

import alembic.command
import openai.resources.chat.completions
import parley_server.llm.upstream
import parley_server.storage.sql.postgres
import uvloop
from chaos.effects import effect_tools
from chaos.twins import TWINS
from parley_server.app import serve
from parley_server.logs import configure_logging
from parley_server.settings import load_settings
from parley_server.signals import ProcessSignals

# What the server imports late, and so every one of them anew.
_PRELOADED = (
    alembic.command,
    openai.resources.chat.completions,
    parley_server.llm.upstream,
    parley_server.storage.sql.postgres,
)


def main() -> None:
    """Begin servers until the standard input ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--listen", required=True)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--twin", choices=["", *TWINS], default="")
    arguments = parser.parse_args()
    if arguments.twin:
        TWINS[arguments.twin]()
    for _ in sys.stdin:
        pid = os.fork()
        if pid == 0:
            _become_server(arguments.listen, arguments.data_dir, arguments.log)
        _tell(str(pid))
        os.waitpid(pid, 0)
        _tell("ended")


def _become_server(listen: str, data_dir: Path, log: Path) -> None:
    signals = ProcessSignals()
    signals.catch()
    _redirect(log)
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    settings = load_settings(config=None, data_dir=data_dir, flags={("server", "listen"): listen})
    dropped_log_lines = configure_logging(settings.log)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(settings, signals, dropped_log_lines, effect_tools()))
    sys.exit()


def _redirect(log: Path) -> None:
    """Give the server files of its own, so that nobody mistakes what it says for the nursery's word."""
    for descriptor, path, flags in ((0, os.devnull, os.O_RDONLY), (1, log, os.O_WRONLY), (2, log, os.O_WRONLY)):
        opened = os.open(path, flags | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(opened, descriptor)
        os.close(opened)


def _tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
