"""Those who act for users by tokens, as speakers; and which credentials have ended."""

import time
from collections import deque
from collections.abc import Collection
from dataclasses import replace
from random import Random

from isolation.cast import Speaker
from isolation.tokens import SERVER, TokenClaims
from rpc.chassis import bearer

_MOST = 600
# Of an example that goes on, the newest.
_RECENT = 60
_LIVING = 0.75
# What lies between this clock's reading and the server's.
_MARGIN_S = 0.05


class Delegates:
    """The tokens that the server has given out. `ending` are keys whose end somebody has asked for, `ended` is over."""

    def __init__(self) -> None:
        self._pool: deque[Speaker] = deque(maxlen=_MOST)
        self.ending: set[str] = set()
        self.ended: set[str] = set()

    def add(self, speaker: Speaker) -> None:
        """Take in somebody who may call, or might."""
        self._pool.append(speaker)

    def pick(self, random: Random, users: Collection[str]) -> Speaker | None:
        """Choose one who acts for one of these users, or has; to all the others he is a stranger."""
        recent = [each for each in self._pool if each.owner in users][-_RECENT:]
        wants_living = random.random() < _LIVING
        found = [each for each in recent if (self.is_good(each) is True) == wants_living]
        if not found:
            return None
        chosen = random.choice(found)
        return replace(chosen, strangers=tuple(user for user in users if user != chosen.owner))

    def resting_on(self, key_id: str, random: Random) -> Speaker | None:
        """Choose one whose token rests on a key and still opens the server."""
        found = [each for each in self._pool if each.key_id == key_id and self.is_good(each)]
        return random.choice(found) if found else None

    def is_good(self, speaker: Speaker) -> bool | None:
        """Tell whether a speaker's credential opens the server now; None where that may change any moment."""
        now = time.time()
        if not speaker.opens or speaker.key_id in self.ended or now > speaker.until + _MARGIN_S:
            return False
        return None if speaker.key_id in self.ending or now > speaker.until - _MARGIN_S else True


def speaker_of(token: str, claims: TokenClaims, role: str) -> Speaker:
    """Return who calls by a token: the user it names, and nobody else's things are his."""
    is_service = claims.sub.startswith("service:")
    return Speaker(
        role=role,
        owner=claims.sub,
        principal=claims.sub if is_service else f"user:{claims.sub}",
        metadata=bearer(token),
        scopes=claims.scopes,
        key_id=claims.cid,
        actors=claims.actors,
        until=claims.exp,
        opens=SERVER in claims.aud,
        is_token=True,
    )
