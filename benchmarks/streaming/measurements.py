"""What a load's clients saw, as they tell it to the benchmark: one line of JSON."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from streaming.script import ages_ms


@dataclass(frozen=True)
class Seen:
    """The chunks and the messages they came in, over so many seconds; times in ms, 50th and 99th percentile."""

    chunks: int
    messages: int
    seconds: float
    first_p50: float
    first_p99: float
    age_p50: float
    age_p99: float

    def to_json(self) -> str:
        """Return the line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: str) -> "Seen":
        """Read a line."""
        return cls(**json.loads(line))


class Sightings:
    """Gathers what the clients of one load see."""

    def __init__(self) -> None:
        self._messages = 0
        self._firsts_ms: list[float] = []
        self._ages_ms: list[float] = []

    def message(self, text: str) -> None:
        """Note one message with the chunks in it."""
        self._messages += 1
        self._ages_ms += ages_ms(text)

    def first(self, waited_s: float) -> None:
        """Note how long a stream's first chunk took from the request on."""
        self._firsts_ms.append(waited_s * 1000)

    def seen(self, seconds: float) -> Seen:
        """Return the sum of it."""
        return Seen(
            len(self._ages_ms),
            self._messages,
            seconds,
            percentile(self._firsts_ms, 0.5),
            percentile(self._firsts_ms, 0.99),
            percentile(self._ages_ms, 0.5),
            percentile(self._ages_ms, 0.99),
        )


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that `share` of them do not exceed."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]
