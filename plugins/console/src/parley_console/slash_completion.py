"""Completes slash commands."""

from collections.abc import Iterator

from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document

from parley_console.slash_commands import SUMMARIES


class SlashCompleter(Completer):
    """Offers the commands that begin with what is typed, with what each does."""

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterator[Completion]:  # noqa: ARG002
        """Yield the commands for a text that is a slash and the beginning of a word."""
        typed = document.text
        if not typed.startswith("/") or document.text_after_cursor:
            return
        for command, summary in SUMMARIES.items():
            if command.value.startswith(typed):
                yield Completion(command.value, start_position=-len(typed), display_meta=summary)
