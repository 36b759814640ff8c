"""The tools of one MCP server that are in use: what was seen first, or accepted by the operator, and nothing else."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Self

from pydantic import TypeAdapter, ValidationError

from parley_server.domain.errors import StartError
from parley_server.tools.mcp.listed_tool import ListedTool

_TOOLS = TypeAdapter(tuple[ListedTool, ...])


class Catalog:
    """Keeps the accepted tools in a file, so that a start has them at once and no change slips in while nothing runs.

    A tool is accepted when it is seen for the first time. With `pinned` one that is seen with another description,
    schema or hints later is withheld until `accept`; without, it takes the place of the former one.

    Raises:
        StartError: the file is there and cannot be read.
    """

    def __init__(self, file: Path, *, pinned: bool) -> None:
        self._file = file
        self._pinned = pinned
        self._read_at: int | None = None
        self._accepted: dict[str, ListedTool] = {}
        self._seen: dict[str, ListedTool] | None = None
        self.reread()

    @classmethod
    def of(cls, server: str, data_dir: Path, *, pinned: bool) -> Self:
        """Open that of a server, where it is kept."""
        return cls(data_dir / "mcp" / f"{server}.json", pinned=pinned)

    @property
    def accepted(self) -> dict[str, ListedTool]:
        """All that was ever accepted, by the server's own names."""
        return dict(self._accepted)

    @property
    def usable(self) -> tuple[ListedTool, ...]:
        """The tools that may be called: accepted ones, unless the server was seen without them or with others."""
        seen = self._accepted if self._seen is None else self._seen
        return tuple(tool for name, tool in self._accepted.items() if name in seen and seen[name] == tool)

    @property
    def withheld(self) -> tuple[ListedTool, ...]:
        """The tools that are not what was accepted, as they were seen."""
        return tuple(tool for name, tool in (self._seen or {}).items() if self._accepted.get(name) != tool)

    def see(self, listed: Iterable[ListedTool]) -> None:
        """Take what the server lists now.

        Raises:
            OSError: what is new cannot be kept.
            StartError: what another process has accepted cannot be read.
        """
        # Else what is written would take back what was accepted in this moment.
        self.reread()
        self._seen = {tool.name: tool for tool in listed}
        news = self._seen if not self._pinned else {n: t for n, t in self._seen.items() if n not in self._accepted}
        self._accept(news)

    def accept(self, listed: Iterable[ListedTool]) -> None:
        """Put these in the place of all that was accepted. Raises OSError."""
        self._seen = {tool.name: tool for tool in listed}
        self._accepted = {}
        self._accept(self._seen)

    def reread(self) -> bool:
        """Take over what another process has accepted; tell whether there was anything. Raises StartError."""
        try:
            changed_at = self._file.stat().st_mtime_ns
            if changed_at == self._read_at:
                return False
            # Once is enough to complain of what cannot be read.
            self._read_at = changed_at
            tools = _TOOLS.validate_json(self._file.read_bytes())
        except FileNotFoundError:
            return False
        except (OSError, ValidationError) as error:
            raise StartError(f"{self._file} cannot be read; delete it, and the tools are accepted anew") from error
        self._accepted = {tool.name: tool for tool in tools}
        return True

    def _accept(self, news: dict[str, ListedTool]) -> None:
        accepted = self._accepted | news
        if self._file.exists() and accepted == self._accepted:
            return
        for folder in (self._file.parent.parent, self._file.parent):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = self._file.with_suffix(f".{os.getpid()}.new")
        text = json.dumps([tool.model_dump(mode="json") for tool in accepted.values()], ensure_ascii=False, indent=1)
        with draft.open("w", encoding="utf-8") as opened:
            opened.write(text)
            opened.flush()
            os.fsync(opened.fileno())
        draft.replace(self._file)
        self._accepted = accepted
        self._read_at = self._file.stat().st_mtime_ns
