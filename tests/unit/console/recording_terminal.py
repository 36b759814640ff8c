"""A terminal at which given texts are typed and that keeps what it is told to show."""

import asyncio
from collections.abc import Sequence

from parley_console.screen import Style


class RecordingTerminal:
    """Types each text `pause_s` after the one before, answers questions, and leaves `stay_s` after the last text."""

    def __init__(self, *texts: str, answers: Sequence[str] = (), pause_s: float = 0.3, stay_s: float = 0.5) -> None:
        self._texts = list(texts)
        self._answers = list(answers)
        self._pause_s = pause_s
        self._stay_s = stay_s
        self.lines: list[str] = []
        self.live: list[str] = []
        self.queued: list[list[str]] = []

    async def read(self) -> str | None:
        await asyncio.sleep(self._pause_s if self._texts else self._stay_s)
        return self._texts.pop(0) if self._texts else None

    async def ask(self, question: str) -> str:
        self.lines.append(question)
        return self._answers.pop(0) if self._answers else ""

    async def choose(self, choices: str, keys: str) -> str:  # noqa: ARG002 - nobody presses one
        self.lines.append(choices)
        await asyncio.Event().wait()
        return ""

    async def ask_aside(self, question: str) -> str | None:
        return await self.ask(question)

    def line(self, text: str = "", style: Style = Style.PLAIN) -> None:  # noqa: ARG002 - the words are what is tested
        self.lines.append(text)

    def markdown(self, source: str) -> None:
        self.lines.append(source.rstrip())

    def show_live(self, text: str) -> None:
        self.live.append(text)

    def show_queued(self, texts: Sequence[str]) -> None:
        self.queued.append(list(texts))
