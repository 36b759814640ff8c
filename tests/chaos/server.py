"""The server under test as a program: the real one with tools that leave effects, or a twin of it.

python -m chaos.server --listen ADDRESS --data-dir DIRECTORY [--twin NAME]
"""

import argparse
import asyncio
import os
from pathlib import Path

import uvloop
from chaos.effects import effect_tools
from chaos.twins import TWINS
from parley_server.app import serve
from parley_server.logs import configure_logging
from parley_server.settings import load_settings
from parley_server.signals import ProcessSignals


def main() -> None:
    """Serve until ended."""
    signals = ProcessSignals()
    signals.catch()
    parser = argparse.ArgumentParser()
    parser.add_argument("--listen", required=True)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--twin", choices=["", *TWINS], default="")
    arguments = parser.parse_args()
    if arguments.twin:
        TWINS[arguments.twin]()
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    settings = load_settings(config=None, data_dir=arguments.data_dir, flags={("server", "listen"): arguments.listen})
    dropped_log_lines = configure_logging(settings.log)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(settings, signals, dropped_log_lines, effect_tools()))


if __name__ == "__main__":
    main()
