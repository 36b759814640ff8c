"""A layer of the fuzz: a way to make cases, and to put them to a server."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from fuzz.messages import Known
from fuzz.oracle import Verdicts
from fuzz.rpcs import Rpc

# No call takes so long, the guard's own limits included; one that does will never be answered.
HANG_S = 40.0


@dataclass(frozen=True, slots=True)
class Ground:
    """The server under test: its address, its rpcs, a key to it, and the names of things that are there."""

    address: str
    rpcs: Sequence[Rpc]
    key: str
    known: Known


class Layer(ABC):
    """Makes cases from a source of randomness alone, so that a seed brings them back."""

    name: str

    def __init__(self, ground: Ground, verdicts: Verdicts) -> None:
        self._ground = ground
        self._verdicts = verdicts

    @abstractmethod
    async def round(self, random: Random) -> None:
        """Put a few cases to the server and judge what it answers."""
