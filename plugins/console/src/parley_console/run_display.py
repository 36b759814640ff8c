"""Where a run is shown."""

from typing import Protocol

from parley.v1.usage_pb2 import Usage

from parley_console.screen import Style


class RunDisplay(Protocol):
    """Takes what there is to see of a run, in order."""

    def text(self, text: str) -> None:
        """Take the next piece of the answer's current item."""

    def end_text(self) -> None:
        """Take the end of the current item."""

    def call_started(self, call_id: str, call: str) -> None:
        """Take the beginning of a tool call."""

    def call_progress(self, call_id: str, progress: str) -> None:
        """Take how far a call is that was told to begin."""

    def call_finished(self, call_id: str, call: str, result: str, *, worked: bool) -> None:
        """Take the end of a tool call, which need not have been told to begin."""

    def note(self, text: str, style: Style = Style.DIM) -> None:
        """Take a line about what happens beside the answer."""

    def amiss(self, text: str) -> None:
        """Take a line about what went wrong."""

    def interrupted(self) -> None:
        """Take the news that Ctrl-C was pressed."""

    def settle(self) -> None:
        """Leave nothing half shown."""

    def used(self, usage: Usage) -> None:
        """Take what the run has used, after its end."""
