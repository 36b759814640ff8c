"""Splits the byte stream of an answer into the payloads of its events (the server-sent events of WHATWG HTML)."""

import re
from typing import NamedTuple

MAX_FRAME_BYTES = 8 * 1024 * 1024
# A chunk of one token takes 200 to 350 bytes on the wire, and models write more than 100,000 tokens.
MAX_RESPONSE_BYTES = 64 * 1024 * 1024

DONE = b"[DONE]"

_BOM = b"\xef\xbb\xbf"
_NOTHING = re.compile(rb"(?:[ \t\r\n]|\xef\xbb\xbf)*")
_FIELDS = frozenset({b"data", b"event", b"id", b"retry", b"error"})


class SseEvent(NamedTuple):
    """One event: its data lines joined by LF, and its type, which is empty unless the stream names one.

    `is_cut` says that the stream ended inside it. With a `problem` it is no event but the reason, in our own words,
    why the stream cannot be read on; nothing follows it.
    """

    payload: bytes
    event_type: bytes = b""
    is_cut: bool = False
    problem: str = ""


class SseSplitter:
    """Takes the reads of one connection in order, however they are cut; linear in their bytes, and never raises.

    Lines end in LF, CRLF or CR. A byte order mark, comments, and a last event without its blank line are taken in
    stride. A body that begins with `{` is no stream but one JSON answer, and comes out whole at the end.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._searched = 0
        self._received = 0
        self._ended_in_cr = False
        self._begun = False
        self._is_json = False
        self._event_seen = False
        self._foreign_line_seen = False
        self._has_failed = False

    def feed(self, read: bytes) -> list[SseEvent]:
        """Return the events that `read` completes, up to the limits on an event and on the whole answer."""
        if self._has_failed:
            return []
        room = MAX_RESPONSE_BYTES - self._received
        self._received += len(read)
        self._buffer += self._with_lf(read[:room])
        if not self._begun:
            self._begin()
        events = [] if self._is_json else self._complete_events()
        return events + self._failures()

    def finish(self) -> list[SseEvent]:
        """Return what the end of the stream completes, and what it cut."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        if self._has_failed:
            return []
        if self._is_json:
            return [_json_answer(rest)]
        events = self._parse(rest, is_cut=not rest.endswith(b"\n"))
        if self._foreign_line_seen and not (events or self._event_seen):
            events.append(self._failure("it is neither an event stream nor JSON"))
        return events

    def _with_lf(self, read: bytes) -> bytes:
        """Turn every line end into LF; the second half of a CRLF that two reads share adds nothing."""
        if self._ended_in_cr and read:
            read = read.removeprefix(b"\n")
            self._ended_in_cr = False
        if b"\r" in read:
            self._ended_in_cr = read.endswith(b"\r")
            read = read.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        return read

    def _begin(self) -> None:
        """Drop byte order marks and blanks, and tell a stream from a JSON answer by its first character."""
        nothing = _NOTHING.match(self._buffer)
        del self._buffer[: nothing.end() if nothing else 0]
        if not _BOM.startswith(self._buffer):
            self._begun = True
            self._is_json = self._buffer.startswith(b"{")

    def _complete_events(self) -> list[SseEvent]:
        end = self._buffer.rfind(b"\n\n", max(self._searched - 1, 0))
        if end < 0:
            self._searched = len(self._buffer)
            return []
        complete = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        self._searched = 0
        return self._events_of(complete)

    def _events_of(self, complete: bytes) -> list[SseEvent]:
        events = []
        for block in complete.split(b"\n\n"):
            if _is_too_long(block):
                events.append(self._failure("one event is too long"))
                break
            if block.startswith(b"data: ") and b"\n" not in block:
                events.append(SseEvent(block[6:]))
            else:
                events.extend(self._parse(block))
        self._event_seen = self._event_seen or bool(events)
        return events

    def _parse(self, block: bytes, *, is_cut: bool = False) -> list[SseEvent]:
        """Read a block line by line: the general form of an event."""
        events: list[SseEvent] = []
        event_type, payload = b"", []
        lines = block.split(b"\n")
        for number, line in enumerate(lines, 1):
            is_cut_here = is_cut and number == len(lines)
            field, colon, value = line.partition(b":")
            value = value.removeprefix(b" ")
            if field == b"data":
                payload.append(value)
            elif field == b"event":
                event_type = value
            elif field == b"error" and colon:
                # llama.cpp reported errors in a field of their own.
                events.append(SseEvent(value, b"error"))
            elif line.startswith(b"{"):
                # Some servers write a bare JSON error into the stream.
                events.append(SseEvent(line, is_cut=is_cut_here))
            elif field and field not in _FIELDS and not (is_cut_here and _may_become_a_field(line)):
                self._foreign_line_seen = True
        if payload or event_type == b"error":
            events.extend(_events_in(payload, event_type, is_cut=is_cut))
        return events

    def _failures(self) -> list[SseEvent]:
        """Say which limit was passed, once."""
        if not self._has_failed and _is_too_long(self._buffer):
            return [self._failure("one event is too long")]
        if not self._has_failed and self._received > MAX_RESPONSE_BYTES:
            return [self._failure("it is too long")]
        return []

    def _failure(self, problem: str) -> SseEvent:
        self._has_failed = True
        self._buffer.clear()
        return SseEvent(b"", problem=problem)


def _events_in(payload: list[bytes], event_type: bytes, *, is_cut: bool) -> list[SseEvent]:
    """Join the data lines to one event, unless each is an event of its own: some servers send no blank lines.

    No line of JSON ends in `}` when the next begins with `{`, so that this never tears an object apart.
    """
    whole = payload[:-1] if is_cut else payload
    if len(payload) > 1 and all(_stands_alone(line.strip()) for line in whole):
        return [SseEvent(line, event_type, is_cut and line is payload[-1]) for line in payload]
    return [SseEvent(b"\n".join(payload), event_type, is_cut)]


def _stands_alone(line: bytes) -> bool:
    return line == DONE or (line.startswith(b"{") and line.endswith(b"}"))


def _may_become_a_field(line: bytes) -> bool:
    return any(field.startswith(line) for field in _FIELDS)


def _is_too_long(block: bytes | bytearray) -> bool:
    """Tell whether an event is too long; a blank line more or less around it depends on the cut, and does not count."""
    return len(block) > MAX_FRAME_BYTES and len(block.strip(b"\n")) > MAX_FRAME_BYTES


def _json_answer(body: bytes) -> SseEvent:
    """Take a whole body; some proxies write the end of a stream behind it."""
    answer = body.rstrip()
    if answer.endswith(DONE):
        answer = answer.removesuffix(DONE).rstrip().removesuffix(b"data:").rstrip()
    return SseEvent(answer, is_cut=not answer.endswith(b"}"))
