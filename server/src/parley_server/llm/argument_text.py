"""Puts the arguments of one tool call together from their pieces, whatever a server means by a piece."""

import json
import re
from collections.abc import Iterator

import msgspec

from parley_server.llm.wire import whole_characters

# A string's end, a brace, or an escaped character: the backslash alone when the next piece has the character.
_MARKS = re.compile(r'\\.?|["{}]', re.DOTALL)

_decode_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_string = msgspec.json.Decoder(str).decode


class ArgumentText:
    """The arguments so far. Every piece is looked at once: linear in their characters.

    `is_whole` says that they look like one whole object; it is right for every object and may err for what is none.
    """

    def __init__(self) -> None:
        self.is_whole = False
        self._pieces: list[str] = []
        self._whole_text = ""
        self._depth = 0
        self._in_string = False
        self._backslash = ""
        self._has_ended = False
        self._last = ""
        self._grows = True

    @property
    def has_begun(self) -> bool:
        """Whether anything came."""
        return bool(self._pieces)

    def add(self, piece: str) -> None:
        """Take the next piece."""
        self._grows = self.is_repeated_in(piece)
        self._last = piece
        self._pieces.append(piece)
        if not self._has_ended:
            self._scan(self._backslash + piece)
        elif piece.strip():
            self.is_whole = False

    def is_repeated_in(self, piece: str) -> bool:
        """Tell whether this piece, as every one before it, begins with the whole piece before: the arguments so far."""
        return self._grows and piece.startswith(self._last)

    def is_whole_again(self, piece: str) -> bool:
        """Tell whether the arguments are whole and `piece` is the same object once more."""
        if not self.is_whole or not piece.lstrip().startswith("{"):
            return False
        self._whole_text = self._whole_text or self._joined()
        return piece.strip() == self._whole_text

    def is_placeholder(self) -> bool:
        """Tell whether `{}` came and nothing else, as some servers send before the arguments."""
        return len(self._pieces) == 1 and self._pieces[0] == "{}"

    def is_complete(self) -> bool:
        """Tell whether an object was written; nothing at all may be what was left of one."""
        return self._joined() not in {"", "null"} and _is_object(self.text())

    def text(self) -> str:
        """Return the arguments as JSON: an object if any can be made of them, else what came; `{}` for nothing."""
        joined = self._joined()
        if joined in {"", "null"}:
            return "{}"
        return next((text for text in self._meanings(joined) if _is_object(text)), joined)

    def _joined(self) -> str:
        return whole_characters("".join(self._pieces)).strip()

    def _meanings(self, joined: str) -> Iterator[str]:
        yield joined
        yield joined.removeprefix("{}").lstrip()
        if self._grows:
            yield whole_characters(self._last).strip()
        if joined.startswith('"'):
            yield _unquoted(joined)

    def _scan(self, text: str) -> None:
        self._backslash = ""
        for match in _MARKS.finditer(text):
            mark = match.group()
            if mark == "\\":
                self._backslash = mark
            elif mark == '"':
                self._in_string = not self._in_string
            elif len(mark) == 1 and not self._in_string:
                self._depth += 1 if mark == "{" else -1
                if self._depth <= 0:
                    self._has_ended = True
                    self.is_whole = not text[match.end() :].strip()
                    return


def as_text(arguments: object) -> str:
    """Return the arguments of a delta as text; an object in the string's place stands for its own JSON."""
    if isinstance(arguments, str):
        return arguments
    return "" if arguments is None else json.dumps(arguments, ensure_ascii=False)


def _is_object(text: str) -> bool:
    try:
        _decode_object(text)
    except (ValueError, RecursionError):
        return False
    return True


def _unquoted(text: str) -> str:
    try:
        return _decode_string(text)
    except ValueError:
        return ""
