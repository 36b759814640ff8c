"""Where `parley ask` takes its question from."""

import select
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click

MAX_QUESTION_BYTES: Final = 256 * 1024
_FIRST_BYTE_S: Final = 3.0


def read_text(words: Sequence[str]) -> str:
    """Return the question: the words of the command line, else standard input when that is a pipe or a file.

    `-` reads standard input in any case. Given words, it is not even looked at: whoever started us may never close it.

    Raises:
        click.UsageError: there is no question, or it is none that can be sent.
    """
    text = " ".join(words) if words and list(words) != ["-"] else _read_input(list(words) == ["-"])
    if not text.strip():
        raise click.UsageError("no question: give it as an argument or on standard input")
    return text.rstrip()


def read_schema(file: Path | None) -> str:
    """Return the JSON Schema in a file, empty for no file. Raises click.UsageError for one that cannot be read."""
    if file is None:
        return ""
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise click.UsageError(f"{file}: cannot be read as UTF-8 text") from None


def _read_input(asked_for: bool) -> str:
    if sys.stdin is None or (sys.stdin.isatty() and not asked_for):
        raise click.UsageError("no question: give it as an argument or on standard input")
    source = sys.stdin.buffer
    if not asked_for and not select.select([source], [], [], _FIRST_BYTE_S)[0]:
        click.echo("parley: waiting for the question on standard input", err=True)
    content = source.read(MAX_QUESTION_BYTES + 1)
    if len(content) > MAX_QUESTION_BYTES:
        raise click.UsageError(f"the question is longer than {MAX_QUESTION_BYTES // 1024} KiB")
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise click.UsageError("standard input is not UTF-8") from None
