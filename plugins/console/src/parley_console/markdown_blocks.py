"""Cuts Markdown that still streams into finished top-level blocks."""

from itertools import pairwise
from typing import Final

from markdown_it import MarkdownIt

_ALWAYS_PARSED_CHARACTERS: Final = 4096
_GROWTH: Final = 1.1


def block_parser() -> MarkdownIt:
    """Build the parser that finds the blocks and that they are rendered by.

    HTML is text to a terminal, and an image is where it can be found. Link definitions would let a block change the
    look of the ones before it.
    """
    parser = MarkdownIt("commonmark", {"html": False, "maxNesting": 100})
    return parser.enable(["table", "strikethrough"]).disable(["reference", "image"])


class MarkdownBlocks:
    """Takes a text in any pieces and gives out its top-level blocks, each once and whole.

    A block is finished when a line after it opened another one: a closed block never opens again. The sources of all
    blocks, the last ones from `finish`, join to the text.
    """

    def __init__(self) -> None:
        self._parser = block_parser()
        self._whole_lines = ""
        self._line = ""
        self._parse_from_length = 0

    @property
    def rest(self) -> str:
        """The text that is in no finished block yet."""
        return self._whole_lines + self._line

    def add(self, text: str) -> list[str]:
        """Take the next piece; returns the sources of the blocks that it finished."""
        # What a line opens is known at its end: `2` begins a paragraph, `2. two` goes on with a list.
        lines, newline, self._line = (self._line + text).rpartition("\n")
        self._whole_lines += lines + newline
        if not newline or len(self._whole_lines) < self._parse_from_length:
            return []
        *finished, self._whole_lines = self._cut(self._whole_lines)
        self._put_off_parsing()
        return finished

    def finish(self) -> list[str]:
        """Take the end of the text; returns the sources of the blocks that are left."""
        rest, self._whole_lines, self._line, self._parse_from_length = self.rest, "", "", 0
        return self._cut(rest) if rest else []

    def _put_off_parsing(self) -> None:
        """Parse a long block anew only when it has grown by a share, or a long listing would cost its square."""
        length = len(self._whole_lines)
        self._parse_from_length = int(length * _GROWTH) if length > _ALWAYS_PARSED_CHARACTERS else 0

    def _cut(self, text: str) -> list[str]:
        """Cut a text where its top-level blocks begin; blank lines belong to the block before them."""
        tokens = self._parser.parse(text.replace("\r", " "))  # a line ends at \n, for the parser too
        starts = [token.map[0] for token in tokens if token.level == 0 and token.nesting >= 0 and token.map]
        lines = text.split("\n")
        lines[:-1] = [line + "\n" for line in lines[:-1]]
        edges = [0, *starts[1:], len(lines)]
        return ["".join(lines[start:end]) for start, end in pairwise(edges)]
