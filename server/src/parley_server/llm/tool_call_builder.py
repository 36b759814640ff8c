"""Puts tool calls together from their deltas, whatever a server does to their indexes, ids and names."""

from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from parley_server.domain.identifiers import new_id
from parley_server.domain.tool import ToolCall
from parley_server.llm.model_errors import invalid
from parley_server.llm.wire import ToolCallDelta, decode_string

MAX_TOOL_CALLS = 64
# Bounds the work on a server that repeats the name with every delta.
_MAX_COMPLETENESS_CHECKS = 64

_decode_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def new_call_id() -> str:
    """Make an id for a call that came without one."""
    return new_id("call")


@dataclass(frozen=True, slots=True)
class _Piece:
    """A delta in plain values; empty strings where the server sent nothing."""

    index: int | None
    call_id: str
    name: str
    arguments: str


@dataclass(slots=True)
class _OpenCall:
    index: int | None
    call_id: str
    name: str = ""
    pieces: list[str] = field(default_factory=list)
    checks_left: int = _MAX_COMPLETENESS_CHECKS

    def text(self) -> str:
        self.pieces = ["".join(self.pieces)]
        return self.pieces[0]

    def is_complete(self) -> bool:
        """Tell whether the arguments so far are a whole JSON object."""
        if not self.pieces or not self.pieces[-1].rstrip().endswith("}") or not self.checks_left:
            return False
        self.checks_left -= 1
        return _is_object(self.text())

    def is_repeated_by(self, piece: _Piece) -> bool:
        """Tell whether `piece` brings the whole call once more."""
        repeated = piece.arguments.strip()
        return repeated.startswith("{") and self.is_complete() and repeated == self.text().strip()

    def is_followed_by(self, piece: _Piece) -> bool:
        """Tell whether `piece` begins another call, although its id or its index is this one's."""
        if not piece.name or not self.name:
            return False
        if piece.name != self.name and piece.call_id and piece.index != self.index:
            return True
        if not self.is_complete():
            return False
        if piece.name != self.name:
            return True
        if not piece.arguments.strip():
            # The name once more on an id or an index that is known; with neither, the head of a second call.
            return not piece.call_id and piece.index is None
        return not self.is_repeated_by(piece)

    def add(self, piece: _Piece) -> None:
        if piece.name != self.name:
            self.name += piece.name
        if piece.arguments and not self.is_repeated_by(piece):
            self.pieces.append(piece.arguments)


class ToolCallBuilder:
    """Routes each delta to its call.

    A known id means that call and an unknown one a new call, even on an index that is taken; without an id the
    index decides; without both, or with an index never seen and no name, the delta goes on with the last call.
    """

    def __init__(self, make_id: Callable[[], str] = new_call_id) -> None:
        self._make_id = make_id
        self._calls: list[_OpenCall] = []
        self._by_id: dict[str, _OpenCall] = {}
        self._by_index: dict[int, _OpenCall] = {}

    def add(self, delta: ToolCallDelta) -> None:
        """Take one delta. Raises ModelError MODEL_RESPONSE_INVALID for too many calls."""
        piece = _plain(delta)
        call = self._find(piece) or self._open(piece)
        call.add(piece)

    def finish(self, *, cut: bool) -> tuple[ToolCall, ...]:
        """Return the calls in the order they began, under ids that differ from each other.

        `cut` says that the model was stopped while it wrote: then a call that is not whole was never made.

        Raises ModelError MODEL_RESPONSE_INVALID for a call without a name.
        """
        ids: set[str] = set()
        calls = []
        for call in self._calls:
            arguments = call.text()
            if cut and not (call.name and _is_object(arguments)):
                continue
            if call.name:
                calls.append(ToolCall(self._unique(call.call_id, ids), call.name, arguments.strip() or "{}"))
            elif arguments.strip():
                raise invalid("a tool call has no name")
        return tuple(calls)

    def _find(self, piece: _Piece) -> _OpenCall | None:
        if piece.call_id:
            known = self._by_id.get(piece.call_id)
        elif piece.index is None or (piece.index not in self._by_index and not piece.name):
            known = self._calls[-1] if self._calls else None
        else:
            known = self._by_index.get(piece.index)
        return None if known is None or known.is_followed_by(piece) else known

    def _open(self, piece: _Piece) -> _OpenCall:
        if len(self._calls) == MAX_TOOL_CALLS:
            raise invalid("it makes too many tool calls")
        call = _OpenCall(piece.index, piece.call_id)
        self._calls.append(call)
        if piece.call_id:
            self._by_id[piece.call_id] = call
        if piece.index is not None:
            self._by_index[piece.index] = call
        return call

    def _unique(self, call_id: str, taken: set[str]) -> str:
        """Return the id, or one derived from it when an earlier call of the answer has it; the same every time."""
        unique = call_id or self._make_id()
        copy = 1
        while unique in taken:
            copy += 1
            unique = f"{call_id}_d{copy}"
        taken.add(unique)
        return unique


def _plain(delta: ToolCallDelta) -> _Piece:
    name, arguments = "", ""
    if delta.function is not None:
        name = delta.function.name or ""
        arguments = _arguments(bytes(delta.function.arguments))
    call_id = "" if delta.id is None else str(delta.id)
    return _Piece(delta.index, call_id.replace("\x00", ""), name.replace("\x00", ""), arguments)


def _arguments(raw: bytes) -> str:
    """Return the arguments' text; an object in the string's place stands for its own JSON."""
    if raw.startswith(b'"'):
        return decode_string(raw)
    return "" if raw == b"null" else raw.decode(errors="replace")


def _is_object(text: str) -> bool:
    try:
        _decode_object(text)
    except (ValueError, RecursionError):
        return False
    return True
