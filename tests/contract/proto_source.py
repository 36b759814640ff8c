"""Reads the comments of .proto files, which descriptors of generated code do not carry.

It knows the layout that `buf format` gives, one declaration a line, and no more of the language than that.
"""

import re
from dataclasses import dataclass
from pathlib import Path

DECLARATION = re.compile(
    r"""
    (?P<kind>message|enum|service|rpc|oneof|extend)\s+(?P<name>[\w.]+)
    | (?:(?:optional|repeated)\s+)?(?:map<[\w., ]+>|[\w.]+)\s+(?P<field>\w+)\s*=\s*\d+
    | (?P<value>[A-Z][A-Z0-9_]*)\s*=\s*\d+
    """,
    re.VERBOSE,
)
BLOCKS = ("message", "enum", "service", "extend", "oneof")


@dataclass(frozen=True)
class Declaration:
    """One thing a .proto file declares, with the comment above it."""

    file: str
    line: int
    kind: str
    name: str
    comment: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line} {self.kind} {self.name}"


def declarations(path: Path) -> list[Declaration]:
    """Everything a file declares: messages, enums, services, rpcs, oneofs, fields and enum values, in order."""
    found: list[Declaration] = []
    comment: list[str] = []
    blocks: list[str] = []
    for number, raw in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        line = raw.strip()
        if line.startswith("//"):
            comment.append(line.removeprefix("//").removeprefix(" "))
            continue
        # Inside an rpc, an option or a field's rules there are no declarations.
        match = DECLARATION.match(line) if not blocks or blocks[-1] in BLOCKS else None
        kind = ""
        if match is not None:
            kind, name = _kind_and_name(match, blocks)
            if kind != "extend":
                found.append(Declaration(path.name, number, kind, name, "\n".join(comment)))
        comment = []
        _follow_braces(line, kind, blocks)
    return found


def _kind_and_name(match: re.Match[str], blocks: list[str]) -> tuple[str, str]:
    if match["kind"]:
        return match["kind"], match["name"]
    if match["value"] and blocks[-1] == "enum":
        return "value", match["value"]
    return "field", match["field"]


def _follow_braces(line: str, kind: str, blocks: list[str]) -> None:
    for bracket in re.findall(r"[{}\[\]]", re.sub(r'"[^"]*"', "", line)):
        if bracket in "{[":
            blocks.append(kind or "other")
            kind = ""
        else:
            blocks.pop()
