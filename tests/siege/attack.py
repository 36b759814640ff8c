"""What an attack is: a way to misuse a server, and how much of it."""

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

# What became of what was sent: "reset" 900, "status 4" 100.
Tally = Counter[str]


@dataclass(frozen=True, slots=True)
class Target:
    """Whom to attack, with how much, and how long to hold on afterwards, in seconds.

    `run_id` names a finished run of a long text.
    """

    address: str
    size: int
    hold_s: float
    run_id: str


@dataclass(frozen=True, slots=True)
class Attack:
    """An attack, its full size, and the memory that it may cost while it lasts.

    `hold_s` is for the full size, and long enough to meet the server's own time limits. One that `freezes` stops its
    own process when it is done, which then lives on without a word until somebody ends it.
    """

    act: Callable[[Target], Awaitable[Tally]]
    size: int
    means: str
    hold_s: float = 1.0
    max_growth_mib: int = 128
    freezes: bool = False
