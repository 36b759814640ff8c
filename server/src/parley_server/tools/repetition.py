"""Whether a run's model goes round in circles: it calls the same tools with the same arguments turn after turn."""

from collections import deque
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet

NOTED_TIMES = 3
MAX_TIMES = 5
WINDOW_TURNS = 12

# A turn's calls by their fingerprints.
Turn = frozenset[str]


class Repetition:
    """How often each call of the newest turn was made: in every turn, or in every other one with one more between.

    The third time its answer carries a note, and the fifth time is the last. Calls of tools that may be repeated are
    not told to this.
    """

    def __init__(self, turns: Iterable[AbstractSet[str]] = ()) -> None:
        self._turns: deque[Turn] = deque(maxlen=WINDOW_TURNS)
        self._alternations = 0
        for turn in turns:
            self.add(turn)

    def add(self, turn: AbstractSet[str]) -> None:
        """Take in the calls of one more turn."""
        self._turns.append(frozenset(turn))
        self._alternations = _alternations(tuple(reversed(self._turns)))

    def forget(self) -> None:
        """Begin to count anew."""
        self._turns.clear()

    def note(self, fingerprint: str) -> str:
        """Return what the model is told with the answer of a call of the newest turn; empty for nothing."""
        times = self._times(fingerprint)
        if times < NOTED_TIMES:
            return ""
        return (
            f"You made this same call, with the same arguments, {times} times in a row. Its answer will not change: do "
            f"something else or answer the user. The run is ended at {MAX_TIMES} times."
        )

    @property
    def is_loop(self) -> bool:
        """Tell whether a call of the newest turn was made too often."""
        return bool(self._turns) and any(self._times(each) >= MAX_TIMES for each in self._turns[-1])

    def _times(self, fingerprint: str) -> int:
        in_a_row = _length(fingerprint in turn for turn in reversed(self._turns))
        return max(in_a_row, self._alternations) if in_a_row else 0


def _alternations(newest: Sequence[Turn]) -> int:
    """Count A-B-A-B, from the newest turn back: turns that are equal, with turns between them that are equal."""
    if len(newest) < 2 or not newest[1]:
        return 0
    return (_length(turn == newest[place % 2] for place, turn in enumerate(newest)) + 1) // 2


def _length(holds: Iterable[bool]) -> int:
    """Return for how many in a row, from the first, it holds."""
    count = 0
    for each in holds:
        if not each:
            break
        count += 1
    return count
