"""All attacks by their names."""

from collections.abc import Mapping

from siege.attack import Attack
from siege.floods import FLOODS
from siege.half_open import HALF_OPEN
from siege.payloads import PAYLOADS
from siege.readers import READERS
from siege.sockets import SOCKETS

ATTACKS: Mapping[str, Attack] = HALF_OPEN | SOCKETS | FLOODS | PAYLOADS | READERS
