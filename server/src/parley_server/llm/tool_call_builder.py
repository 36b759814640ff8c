"""Puts tool calls together from their deltas, whatever a server does to their indexes, ids and names."""

from collections.abc import Callable
from dataclasses import dataclass, field

from parley_server.domain.identifiers import new_id
from parley_server.domain.tool import ToolCall
from parley_server.llm.argument_text import ArgumentText, as_text
from parley_server.llm.model_errors import invalid
from parley_server.llm.wire import ToolCallDelta, whole_characters

MAX_TOOL_CALLS = 64
MAX_NAME_CHARACTERS = 4096
# Of all calls together: far more than the tools take.
MAX_ARGUMENT_CHARACTERS = 8 * 1024 * 1024


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
    arguments: ArgumentText = field(default_factory=ArgumentText)

    def is_followed_by(self, piece: _Piece) -> bool:
        """Tell whether `piece` begins another call, although its id or its index is this one's."""
        if not piece.name or not self.name:
            return False
        if piece.name != self.name and piece.call_id and piece.index != self.index:
            return True
        if not self.arguments.is_whole:
            return False
        if piece.name != self.name:
            return True
        if not piece.arguments.strip():
            # The name once more on an id or an index that is known; with neither, the head of a second call.
            return not piece.call_id and piece.index is None
        return not self._is_continued_by(piece)

    def goes_on_with(self, piece: _Piece) -> bool:
        """Tell whether `piece` can be no call's beginning: it has no name, or arguments that begin in the middle."""
        if self.arguments.is_whole:
            return False
        text = piece.arguments.lstrip()
        is_middle = self.arguments.has_begun and bool(text) and not text.startswith("{")
        return not piece.name or (piece.name == self.name and is_middle)

    def add(self, piece: _Piece) -> None:
        if piece.name != self.name:
            self.name += piece.name
            if len(self.name) > MAX_NAME_CHARACTERS:
                raise invalid("a tool's name is too long")
        if piece.arguments and not self.arguments.is_whole_again(piece.arguments):
            self.arguments.add(piece.arguments)

    def _is_continued_by(self, piece: _Piece) -> bool:
        """Tell whether `piece`, with this call's name, brings its arguments: again, so far, or those `{}` stood for."""
        if self.arguments.is_whole_again(piece.arguments):
            return True
        is_same = bool(piece.call_id) and (piece.call_id, piece.index) == (self.call_id, self.index)
        return is_same and (self.arguments.is_placeholder() or self.arguments.is_repeated_in(piece.arguments))


class ToolCallBuilder:
    """Routes each delta to its call.

    A known id means that call and an unknown one a new call, even on an index that is taken, unless the delta can be
    no call's beginning; without an id the index decides; without both, or with an index never seen and no name, the
    delta goes on with the last call.
    """

    def __init__(self, make_id: Callable[[], str] = new_call_id) -> None:
        self._make_id = make_id
        self._calls: list[_OpenCall] = []
        self._by_id: dict[str, _OpenCall] = {}
        self._by_index: dict[int, _OpenCall] = {}
        self._by_both: dict[tuple[str, int | None], _OpenCall] = {}
        self._characters_left = MAX_ARGUMENT_CHARACTERS

    def add(self, delta: ToolCallDelta) -> None:
        """Take one delta. Raises ModelError MODEL_RESPONSE_INVALID for too many calls, or too long ones."""
        piece = _plain(delta)
        self._characters_left -= len(piece.arguments)
        if self._characters_left < 0:
            raise invalid("its tool calls are too long")
        call = self._find(piece) or self._open(piece)
        call.add(piece)

    def __bool__(self) -> bool:
        return bool(self._calls)

    def are_whole(self) -> bool:
        """Tell whether every call has its name, and arguments that are an object."""
        return all(call.name and call.arguments.is_complete() for call in self._calls)

    def finish(self, *, cut: bool) -> tuple[ToolCall, ...]:
        """Return the calls in the order they began, under ids that differ from each other.

        `cut` says that the model was stopped while it wrote: then a call that is not whole was never made.

        Raises ModelError MODEL_RESPONSE_INVALID for a call without a name.
        """
        ids: set[str] = set()
        calls = []
        for call in self._calls:
            if cut and not (call.name and call.arguments.is_complete()):
                continue
            arguments = call.arguments.text()
            if call.name:
                calls.append(ToolCall(self._unique(call.call_id, ids), call.name, arguments))
            elif arguments != "{}":
                raise invalid("a tool call has no name")
        return tuple(calls)

    def _find(self, piece: _Piece) -> _OpenCall | None:
        if piece.call_id:
            known = self._by_both.get((piece.call_id, piece.index)) or self._by_id.get(piece.call_id)
            if known is None:
                known = self._under_a_new_id(piece)
        else:
            known = self._without_id(piece)
        return None if known is None or known.is_followed_by(piece) else known

    def _without_id(self, piece: _Piece) -> _OpenCall | None:
        if piece.index is None or (piece.index not in self._by_index and not piece.name):
            return self._calls[-1] if self._calls else None
        return self._by_index.get(piece.index)

    def _under_a_new_id(self, piece: _Piece) -> _OpenCall | None:
        """Find the call that goes on although its id was never seen: it had none, or gets another with every piece."""
        call = self._without_id(piece)
        if call is None or not call.name:
            return None
        if not (call.call_id or piece.name):
            call.call_id = piece.call_id
            self._by_id[piece.call_id] = call
            return call
        return call if call.index == piece.index and call.goes_on_with(piece) else None

    def _open(self, piece: _Piece) -> _OpenCall:
        if len(self._calls) == MAX_TOOL_CALLS:
            raise invalid("it makes too many tool calls")
        call = _OpenCall(piece.index, piece.call_id)
        self._calls.append(call)
        if piece.call_id:
            self._by_id[piece.call_id] = call
            self._by_both[piece.call_id, piece.index] = call
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
        arguments = as_text(delta.function.arguments)
    call_id = "" if delta.id is None else str(delta.id)
    return _Piece(delta.index, _plain_word(call_id), _plain_word(name), arguments)


def _plain_word(word: str) -> str:
    return whole_characters(word).replace("\x00", "")
