"""Splits the byte stream of an answer into the payloads of its events (the server-sent events of WHATWG HTML)."""

from typing import NamedTuple

from parley_server.llm.model_errors import invalid

MAX_FRAME_BYTES = 8 * 1024 * 1024
# A chunk of one token takes 200 to 350 bytes on the wire, and models write more than 100,000 tokens.
MAX_RESPONSE_BYTES = 64 * 1024 * 1024

_BOM = b"\xef\xbb\xbf"
_BLANK = b" \t\r\n"
_FIELDS = frozenset({b"data", b"event", b"id", b"retry"})


class SseEvent(NamedTuple):
    """One event: its data lines joined by LF, and its type, which is empty unless the stream names one."""

    payload: bytes
    event_type: bytes = b""


class SseSplitter:
    """Takes the reads of one connection in order, however they are cut; linear in their bytes.

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

    def feed(self, read: bytes) -> list[SseEvent]:
        """Return the events that `read` completes. Raises ModelError MODEL_RESPONSE_INVALID over a limit."""
        self._received += len(read)
        if self._received > MAX_RESPONSE_BYTES:
            raise invalid("it is too long")
        self._buffer += self._with_lf(read)
        if not self._begun:
            self._begin()
        events = [] if self._is_json else self._complete_events()
        if len(self._buffer) > MAX_FRAME_BYTES:
            raise invalid("one event is too long")
        return events

    def finish(self) -> list[SseEvent]:
        """Return what the end of the stream completes. Raises ModelError when none of it was an event stream."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        if self._is_json:
            return [SseEvent(rest)]
        events = self._events_of(rest)
        if self._foreign_line_seen and not self._event_seen:
            raise invalid("it is neither an event stream nor JSON")
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
        """Drop a byte order mark and blanks, and tell a stream from a JSON answer by its first character."""
        if _BOM.startswith(self._buffer[: len(_BOM)]):
            if len(self._buffer) < len(_BOM):
                return
            del self._buffer[: len(_BOM)]
        self._buffer = self._buffer.lstrip(_BLANK)
        if self._buffer:
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
            if block.startswith(b"data: ") and b"\n" not in block:
                events.append(SseEvent(block[6:]))
            else:
                events.extend(self._parse(block))
        self._event_seen = self._event_seen or bool(events)
        return events

    def _parse(self, block: bytes) -> list[SseEvent]:
        """Read a block line by line: the general form of an event."""
        events, event_type, payload = [], b"", []
        for line in block.split(b"\n"):
            field, _, value = line.partition(b":")
            value = value.removeprefix(b" ")
            if field == b"data":
                payload.append(value)
            elif field == b"event":
                event_type = value
            elif line.startswith(b"{"):
                # Some servers write a bare JSON error into the stream.
                events.append(SseEvent(line))
            elif field and field not in _FIELDS:
                self._foreign_line_seen = True
        if payload:
            events.append(SseEvent(b"\n".join(payload), event_type))
        return events
