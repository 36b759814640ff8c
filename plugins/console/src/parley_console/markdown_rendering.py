"""Renders finished blocks of Markdown for a terminal."""

import io
import re
from typing import ClassVar, Final

from rich.console import Console, ConsoleOptions, RenderResult
from rich.markdown import CodeBlock, Markdown, MarkdownElement
from rich.syntax import Syntax

from parley_console.markdown_blocks import block_parser

_PARSER: Final = block_parser()
_PADDING: Final = re.compile(r"(?:\x1b\[[\d;]*m *\x1b\[0m| )+$| +(?=\x1b\[0m$)", re.MULTILINE)


class _UnpaddedCode(CodeBlock):
    """A listing that can be copied from the terminal as it is."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Syntax(str(self.text).rstrip(), self.lexer_name, theme=self.theme, word_wrap=True)


class _Block(Markdown):
    elements: ClassVar[dict[str, type[MarkdownElement]]] = {
        **Markdown.elements,
        "fence": _UnpaddedCode,
        "code_block": _UnpaddedCode,
    }


def render_block(source: str, columns: int, *, colours: bool) -> str:
    """Return the lines of one block, wrapped at words to `columns`, without blank lines around them.

    `source` has no control characters. Without `colours` the result is plain text. A link shows where it leads.
    """
    block = _Block("", code_theme="ansi_dark", hyperlinks=False)
    block.parsed = _PARSER.parse(source)
    stream = io.StringIO()
    Console(
        file=stream,
        width=columns,
        force_terminal=colours,
        color_system="standard" if colours else None,
        no_color=not colours,
        legacy_windows=False,
        _environ={},  # the caller has judged the environment
    ).print(block)
    return _PADDING.sub("", stream.getvalue()).strip("\n")
