"""Logs: structlog's and the libraries', in one form on standard error, never with users' words in them."""

import logging
import sys
import traceback
from contextlib import suppress
from typing import TextIO

import structlog

from parley_server.settings import LogSettings


def configure_logging(settings: LogSettings) -> None:
    """Send all logging to standard error in one form."""
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    shared: list[structlog.types.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    is_json = settings.format == "json" or (settings.format == "auto" and not sys.stderr.isatty())
    ending: list[structlog.types.Processor] = (
        [structlog.processors.ExceptionRenderer(_trace), structlog.processors.JSONRenderer()]
        if is_json
        else [structlog.dev.ConsoleRenderer(exception_formatter=_write_trace)]
    )
    structlog.configure(
        processors=[*shared, *ending],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: _Lines(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    remove = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processors=[remove, *ending], foreign_pre_chain=shared))
    # The libraries' own chatter is not the server's log: their warnings are.
    logging.basicConfig(level=max(level, logging.WARNING), handlers=[handler], force=True)
    # A handler that cannot write would otherwise report that to where it cannot write.
    logging.raiseExceptions = False


class _Lines:
    """Writes a line per entry. A log that cannot be written, on a full disk say, must not fail what it tells of."""

    def msg(self, line: str) -> None:
        """Write one line."""
        with suppress(OSError, ValueError):
            print(line, file=sys.stderr, flush=True)  # noqa: T201  # this is the log

    debug = info = warning = error = critical = msg


def _trace(exc_info: structlog.typing.ExcInfo) -> str:
    """Say what failed and where. Not in the exception's own words: they may be a user's."""
    frames = traceback.extract_tb(exc_info[2])
    return "\n".join(
        [exc_info[0].__qualname__, *(f"  {frame.filename}:{frame.lineno} {frame.name}" for frame in frames)]
    )


def _write_trace(out: TextIO, exc_info: structlog.typing.ExcInfo) -> None:
    out.write(_trace(exc_info))
