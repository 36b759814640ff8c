"""The text of a run, put together from its events."""

from parley.v1.run_event_pb2 import RunEvent


class Answer:
    """Collects the items of text of one run."""

    def __init__(self) -> None:
        self._texts: dict[str, list[str]] = {}
        self._output_item_id = ""

    def add(self, event: RunEvent) -> None:
        """Take in the run's next event; what has no text is ignored."""
        match event.WhichOneof("event"):
            case "text_delta":
                self._texts.setdefault(event.item_id, []).append(event.text_delta.text)
            case "message_completed":
                self._texts[event.item_id] = [event.message_completed.text]
            case "attempt_restarted":
                for item_id in event.attempt_restarted.discarded_item_ids:
                    self._texts.pop(item_id, None)
            case "run_finished":
                self._output_item_id = event.run_finished.output_item_id
            case "history_truncated":
                self.settle(event.history_truncated.run.output_text)
            case _:
                pass

    def settle(self, output_text: str) -> None:
        """Take in the answer as a run keeps it, where its events are no longer at hand."""
        self._texts[""] = [output_text]

    @property
    def text(self) -> str:
        """The answer, or its beginning while the run goes on; before there is one, the item that came last."""
        if self._output_item_id in self._texts:
            return "".join(self._texts[self._output_item_id])
        return "".join(next(reversed(self._texts.values()), ()))
