"""Completes slash commands."""

from collections.abc import Iterator
from typing import Final

from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document

from parley_console.slash_commands import SUMMARIES, VERBS


class SlashCompleter(Completer):
    """Offers the commands that begin with what is typed, and the verbs of those that have some, with what each does."""

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterator[Completion]:  # noqa: ARG002
        """Yield what a text that is a slash and the beginning of a command may become."""
        typed = document.text
        if not typed.startswith("/") or document.text_after_cursor:
            return
        for text, summary in _OFFERED.items():
            if text.startswith(typed) and text.count(" ") == typed.count(" "):
                yield Completion(text, start_position=-len(typed), display_meta=summary)


_OFFERED: Final = {command.value: summary for command, summary in SUMMARIES.items()} | {
    f"{command.value} {verb}": summary for command, verbs in VERBS.items() for verb, summary in verbs.items()
}
