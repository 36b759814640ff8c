"""What a page says, as plain text: decoded, and of HTML without its marks. Every step takes time linear in its size."""

import codecs
import html
import re

_TAG = re.compile(r"</?([A-Za-z][A-Za-z0-9-]*)")
_HIDDEN = {
    name: re.compile(rf"</{name}", re.IGNORECASE)
    for name in ("script", "style", "template", "svg", "textarea", "title")
}
# What stands between the words of a line; every other tag begins a new one.
_INLINE = re.compile(
    r"a|abbr|b|bdi|bdo|big|cite|code|data|del|dfn|em|font|i|img|ins|kbd|label|mark|q|s|samp|small|span|strong|sub|sup|"
    r"time|tt|u|var|wbr"
)
_CELLS = frozenset({"td", "th"})
# No page is written in these: the first two take time beyond all measure, the others are Python's own.
_ODD_CHARSETS = frozenset({"idna", "punycode", "unicode-escape", "raw-unicode-escape"})
# More digits than any character has, and than Python reads as a number.
_ENDLESS_REFERENCE = re.compile(r"&#[0-9]{8,};?")


def decoded(body: bytes, charset: str) -> str:
    """Return a text in the charset that its server names, in UTF-8 where that is none; what is no text is U+FFFD."""
    try:
        name = codecs.lookup(charset or "utf-8").name
        return body.decode("utf-8" if name in _ODD_CHARSETS else name, "replace")
    except (LookupError, ValueError):
        return body.decode("utf-8", "replace")


def text_of_html(source: str) -> tuple[str, str]:
    """Return a page's title and its text, a line for each block."""
    parts: list[str] = []
    title = ""
    place = 0
    while (start := source.find("<", place)) >= 0:
        parts.append(source[place:start])
        tag = _TAG.match(source, start)
        if tag is None:
            place = _behind_other(source, start, parts)
            continue
        place = _behind(source, ">", tag.end())
        name = tag[1].lower()
        parts.append("" if _INLINE.fullmatch(name) else " " if name in _CELLS else "\n")
        if name in _HIDDEN and source[start + 1] != "/":
            end = _HIDDEN[name].search(source, place)
            hidden = source[place : len(source) if end is None else end.start()]
            title = title or (hidden if name == "title" else "")
            place += len(hidden)
    parts.append(source[place:])
    return " ".join(_plain(title).split()), _plain("".join(parts))


def _behind_other(source: str, start: int, parts: list[str]) -> int:
    """Return the place behind a `<` that begins no tag: a comment, a declaration, or a character of the text."""
    if source.startswith("<!--", start):
        return _behind(source, "-->", start + 4)
    if source.startswith(("<!", "<?", "</"), start):
        return _behind(source, ">", start)
    parts.append("<")
    return start + 1


def _behind(source: str, end: str, place: int) -> int:
    found = source.find(end, place)
    return len(source) if found < 0 else found + len(end)


def _plain(marked: str) -> str:
    text = html.unescape(_ENDLESS_REFERENCE.sub("\N{REPLACEMENT CHARACTER}", marked))
    lines = (" ".join(line.split()) for line in text.splitlines())
    return "\n".join(line for line in lines if line)
