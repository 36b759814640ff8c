"""The log's lines: they come whole and in order, and nobody waits for whoever reads them."""

import contextlib
import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from parley_server.logs import LineWriter

Pipe = tuple[int, int]


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    reader, writer = os.pipe()
    yield reader, writer
    for fd in (reader, writer):
        with contextlib.suppress(OSError):  # a test may have closed it
            os.close(fd)


def fill(writer: int) -> int:
    """Fill a pipe to the brim; return how many bytes that took."""
    flags = fcntl.fcntl(writer, fcntl.F_GETFL)
    fcntl.fcntl(writer, fcntl.F_SETFL, flags | os.O_NONBLOCK)
    filled = 0
    try:
        while True:
            filled += os.write(writer, b"x" * 4096)
    except BlockingIOError:
        fcntl.fcntl(writer, fcntl.F_SETFL, flags)
        return filled


def read_until(reader: int, words: bytes) -> bytes:
    read = b""
    while words not in read:
        read += os.read(reader, 65536)
    return read


def test_lines_come_whole_and_in_order(pipe: Pipe) -> None:
    reader, fd = pipe
    writer = LineWriter(fd)
    lines = [f"{number} \N{BOMB} \ud800\n" for number in range(1000)]
    for line in lines:
        writer.write(line)
    writer.close()
    os.close(fd)
    with os.fdopen(os.dup(reader), "rb") as file:
        assert file.read() == "".join(lines).encode(errors="backslashreplace")
    assert writer.dropped == 0


def test_a_full_pipe_holds_up_nobody_and_what_it_cost_is_counted(pipe: Pipe) -> None:
    reader, fd = pipe
    filled = fill(fd)
    writer = LineWriter(fd, max_waiting_characters=1000)
    for _ in range(1000):
        writer.write("a line\n")
    assert 0 < writer.dropped < 1000
    writer.close()
    kept = 1000 - writer.dropped
    assert read_until(reader, b"a line\n" * kept)[filled:].count(b"a line\n") == kept


def test_a_pipe_that_does_not_block_is_waited_for_by_the_thread_alone(pipe: Pipe) -> None:
    reader, fd = pipe
    fill(fd)
    fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_NONBLOCK)
    writer = LineWriter(fd)
    writer.write("at last\n")
    assert b"at last\n" in read_until(reader, b"at last\n")
    writer.close()


def test_a_reader_who_is_gone_is_no_fault(pipe: Pipe) -> None:
    reader, fd = pipe
    os.close(reader)
    writer = LineWriter(fd)
    for _ in range(10):
        writer.write("a line\n")
    writer.close()


PROGRAM = """
import os, sys
import structlog
from parley_server.logs import configure_logging
from parley_server.settings import LogSettings
configure_logging(LogSettings(format=sys.argv[1]))
opened = os.open(os.devnull, os.O_RDONLY)
structlog.get_logger().warning("event", word="a\\x1b[31m\\nb", number=1)
print(opened)
"""


def test_control_characters_are_shown_and_do_not_act() -> None:
    for form in ("json", "console"):
        program = [sys.executable, "-c", PROGRAM, form]
        done = subprocess.run(program, check=True, capture_output=True, text=True)
        assert "\x1b" not in done.stderr
        assert done.stderr.count("\n") == 1
        assert "number" in done.stderr


def test_without_standard_error_the_program_goes_on_and_no_file_takes_its_place() -> None:
    program = f"exec {sys.executable} -c '{PROGRAM}' auto 2>&-"
    done = subprocess.run(["/bin/sh", "-c", program], check=True, capture_output=True, text=True)
    assert int(done.stdout) > 2


def test_a_blocked_reader_does_not_keep_the_program_from_ending(pipe: Pipe) -> None:
    _, fd = pipe
    fill(fd)
    start = time.monotonic()
    done = subprocess.run([sys.executable, "-c", PROGRAM, "json"], check=True, stdout=subprocess.DEVNULL, stderr=fd)
    assert done.returncode == 0
    assert time.monotonic() - start < 60
