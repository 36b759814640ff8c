"""Logs: structlog's and the libraries', in one form on standard error, never with users' words in them.

Lines are written by a thread of their own. Whoever reads them may be slow, or gone: the server serves on.
"""

import atexit
import logging
import os
import select
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from typing import NoReturn, TextIO

import structlog

from parley_server.settings import LogSettings

MAX_WAITING_CHARACTERS = 1024 * 1024
FLUSH_S = 1.0

# What every entry has besides its own.
STAMPS: Sequence[structlog.types.Processor] = (
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
)

_log = structlog.get_logger(__name__)
_open: list["LineWriter"] = []


def configure_logging(settings: LogSettings) -> Callable[[], int]:
    """Send all logging to standard error in one form; return what tells how many lines have been dropped."""
    _hold_standard_files()
    lines = LineWriter(_standard_error())
    atexit.register(lines.close)
    _open.append(lines)
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    is_terminal = sys.stderr is not None and sys.stderr.isatty()
    is_json = settings.format == "json" or (settings.format == "auto" and not is_terminal)
    ending = line_of(is_json=is_json, is_terminal=is_terminal)
    structlog.configure(
        processors=[*STAMPS, *ending],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: _Lines(lines),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(lines)
    remove = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processors=[remove, *ending], foreign_pre_chain=STAMPS))
    # The libraries' own chatter is not the server's log: their warnings are.
    logging.basicConfig(level=max(level, logging.WARNING), handlers=[handler], force=True)
    # A handler that cannot write would otherwise report that to where it cannot write.
    logging.raiseExceptions = False
    logging.getLogger("grpc._cython.cygrpc").addFilter(_quotes_no_metadata)
    return lambda: lines.dropped


def line_of(*, is_json: bool, is_terminal: bool = False) -> list[structlog.types.Processor]:
    """Return what makes an entry a line; of an exception it says what failed and where, never its words."""
    if is_json:
        return [structlog.processors.ExceptionRenderer(_trace), structlog.processors.JSONRenderer()]
    return [_escape, structlog.dev.ConsoleRenderer(colors=is_terminal, exception_formatter=_write_trace)]


def end_process(exit_code: int) -> NoReturn:
    """End as a crash would, with nothing closed, once the log is written or FLUSH_S have passed."""
    for lines in _open:
        lines.close()
    os._exit(exit_code)


class LineWriter:
    """Writes to a file descriptor on a thread; `write` never waits. None, or what cannot be written to, takes nothing.

    What waits is bounded; lines beyond that are dropped and counted, and the log says so once it flows again.
    """

    def __init__(self, fd: int | None, max_waiting_characters: int = MAX_WAITING_CHARACTERS) -> None:
        self.dropped = 0
        self._fd = fd
        self._max_waiting_characters = max_waiting_characters
        self._waiting: list[str] = []
        self._waiting_characters = 0
        self._told = 0
        self._closing = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._write_until_closed, name="log", daemon=True)
        self._thread.start()

    def write(self, text: str) -> None:
        """Take whole lines, from any thread."""
        with self._changed:
            if self._waiting_characters + len(text) > self._max_waiting_characters:
                self.dropped += 1
                return
            self._waiting.append(text)
            self._waiting_characters += len(text)
            self._changed.notify()

    def flush(self) -> None:
        """Do nothing: what is written is on its way."""

    def close(self) -> None:
        """Write what waits, for at most FLUSH_S."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(FLUSH_S)

    def _write_until_closed(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closing)
                texts, self._waiting, self._waiting_characters = self._waiting, [], 0
            if not texts:
                return
            self._write("".join(texts).encode(errors="backslashreplace"))
            if self.dropped > self._told:
                self._told = self.dropped
                _log.warning("log_lines_dropped", lines=self._told)

    def _write(self, data: bytes) -> None:
        if self._fd is None:
            return
        # Past sys.stderr and its lock, which a blocked thread would hold when the process ends.
        while data:
            try:
                data = data[os.write(self._fd, data) :]
            except BlockingIOError:
                select.select([], [self._fd], [], 1.0)
            except OSError:
                return


class _Lines:
    """Writes a line per entry."""

    def __init__(self, lines: LineWriter) -> None:
        self._lines = lines

    def msg(self, line: str) -> None:
        """Write one line."""
        self._lines.write(line + "\n")

    debug = info = warning = error = critical = msg


def _hold_standard_files() -> None:
    """Open nothing in the place of standard files that are closed: a database there would get what is printed."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(fd)


def _standard_error() -> int | None:
    """Return the file descriptor; None where it is closed, or replaced by something that is no file."""
    try:
        return None if sys.stderr is None else sys.stderr.fileno()
    except OSError:
        return None


def _escape(_: object, __: str, fields: structlog.types.EventDict) -> structlog.types.EventDict:
    """Make control characters visible, which on a terminal would act."""
    for key, value in fields.items():
        if isinstance(value, str) and not value.isprintable():
            fields[key] = value.encode("unicode_escape").decode()
    return fields


def _quotes_no_metadata(record: logging.LogRecord) -> bool:
    """Tell whether a line of gRPC's may be written: it repeats metadata that is no text, of a credential, too."""
    return not str(record.msg).startswith("Invalid encoding on")


def _trace(exc_info: structlog.typing.ExcInfo) -> str:
    """Say what failed and where. Not in the exception's own words: they may be a user's."""
    frames = traceback.extract_tb(exc_info[2])
    return "\n".join(
        [exc_info[0].__qualname__, *(f"  {frame.filename}:{frame.lineno} {frame.name}" for frame in frames)]
    )


def _write_trace(out: TextIO, exc_info: structlog.typing.ExcInfo) -> None:
    out.write(_trace(exc_info))
