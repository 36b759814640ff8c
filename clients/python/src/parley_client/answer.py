"""The text of a run, put together from its events."""

from parley.v1.run_event_pb2 import RunEvent
from parley.v1.run_pb2 import Run


class Answer:
    """Collects the items of text of one run."""

    def __init__(self) -> None:
        self._texts: dict[str, list[str]] = {}
        self._outputs: dict[str, str] = {}
        self._output_item_id = ""

    def add(self, event: RunEvent) -> None:
        """Take in the run's next event; what has no text is ignored."""
        match event.WhichOneof("event"):
            case "text_delta":
                self._texts.setdefault(event.item_id, []).append(event.text_delta.text)
            case "message_completed":
                self._texts[event.item_id] = [event.message_completed.text]
                self._outputs[event.item_id] = event.message_completed.output_json
            case "attempt_restarted":
                for item_id in event.attempt_restarted.discarded_item_ids:
                    self._texts.pop(item_id, None)
            case "run_finished":
                self._output_item_id = event.run_finished.output_item_id
            case "history_truncated":
                self.settle(event.history_truncated.run)
            case _:
                pass

    def settle(self, run: Run) -> None:
        """Take in the answer as a run keeps it, where its events are no longer at hand."""
        self._texts[""] = [run.output_text]
        self._outputs[""] = run.output_json

    @property
    def text(self) -> str:
        """The answer, or its beginning while the run goes on; before there is one, the item that came last."""
        if self._output_item_id in self._texts:
            return "".join(self._texts[self._output_item_id])
        return "".join(next(reversed(self._texts.values()), ()))

    @property
    def output_json(self) -> str:
        """The answer as JSON that fits the schema asked for; empty while there is none."""
        return self._outputs.get(self._output_item_id) or self._outputs.get("", "")
