"""Tokens made of good ones, each with something changed that the issuer has not signed."""

import base64
import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from jwt.algorithms import HMACAlgorithm
from token_issuer import Clock, SigningKey, encoded, segment

CLOCK = Clock()
KEYS = [SigningKey.make("ec"), SigningKey.make("rsa", "RS256"), SigningKey.make("ed", "EdDSA")]
# With the names of the issuer's, and with its algorithms.
STRANGERS = [SigningKey.make(key.kid, key.alg) for key in KEYS] + [SigningKey.make("x", key.alg) for key in KEYS]
_HMAC = HMACAlgorithm(HMACAlgorithm.SHA256)
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
_ALGORITHMS = ("none", "None", "", "HS256", "HS512", "RS256", "RS512", "PS256", "ES256", "ES384", "EdDSA", 7, None)
_VALUES: Sequence[object] = (
    *("", "ann", "bob", "admin", "*", "../x", "https://login.example.org", "parley", "\x00", "okta:ann"),
    *(0, -1, 1.5, 9e99, 10**30, True, None, [], ["parley"], {}, {"sub": "bob"}, 4_102_444_800),
)
_NAMES = ("iss", "sub", "aud", "exp", "iat", "nbf", "scope", "act", "jti", "admin", "kind", "act_as")


@dataclass(frozen=True)
class Good:
    """A good token, in its parts."""

    text: str

    @property
    def parts(self) -> list[str]:
        return self.text.split(".")

    @property
    def header(self) -> dict[str, object]:
        return _object(self.parts[0])

    @property
    def claims(self) -> dict[str, object]:
        return _object(self.parts[1])


def _raw(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def _object(part: str) -> dict[str, object]:
    value: dict[str, object] = json.loads(_raw(part))
    return value


def good_tokens() -> list[Good]:
    """Return good tokens by every key, for several users."""
    return [Good(key.token(CLOCK.claims(sub=sub))) for key in KEYS for sub in ("ann", "bob", "carla")]


class Mutator:
    """Makes mutants of `good`; the same seed makes the same ones of the same tokens."""

    def __init__(self, good: Sequence[Good], seed: int) -> None:
        self._good = good
        self._random = random.Random(seed)

    def mutant(self) -> tuple[str, str]:
        """Return a mutant and the kind of change; never one of the good tokens."""
        texts = {each.text for each in self._good}
        while True:
            kind, change = self._random.choice(list(_CHANGES.items()))
            text = change(self, self._random.choice(self._good))
            if text not in texts:
                return kind, text

    def letter(self, good: Good) -> str:
        place = self._random.randrange(len(good.text))
        return good.text[:place] + self._random.choice(_LETTERS + ".=+/ ,") + good.text[place + 1 :]

    def bit_of_the_text(self, good: Good) -> str:
        raw = bytearray(good.text.encode())
        raw[self._random.randrange(len(raw))] ^= 1 << self._random.randrange(7)
        return raw.decode()

    def bit_of_the_content(self, good: Good) -> str:
        parts = good.parts
        which = self._random.randrange(3)
        raw = bytearray(_raw(parts[which]))
        raw[self._random.randrange(len(raw))] ^= 1 << self._random.randrange(8)
        parts[which] = encoded(bytes(raw))
        return ".".join(parts)

    def length(self, good: Good) -> str:
        place = self._random.randrange(len(good.text))
        more = "".join(self._random.choices(_LETTERS, k=self._random.randrange(4)))
        return good.text[:place] + more + good.text[place + self._random.randrange(4) :]

    def parts_of_others(self, _: Good) -> str:
        return ".".join(self._random.choice(self._good).parts[place] for place in range(3))

    def order_of_the_parts(self, good: Good) -> str:
        return ".".join(self._random.choices(good.parts, k=self._random.choice((2, 3, 3, 3, 4))))

    def claims_under_the_signature(self, good: Good) -> str:
        header, _, signature = good.parts
        return f"{header}.{segment(self._changed(good.claims, _NAMES))}.{signature}"

    def header_over_the_signature(self, good: Good) -> str:
        _, claims, signature = good.parts
        return f"{segment(self._other_header(good))}.{claims}.{signature}"

    def signature_of_a_stranger(self, good: Good) -> str:
        claims = good.claims if self._random.random() < 0.5 else self._changed(good.claims, _NAMES)
        header = good.header if self._random.random() < 0.5 else self._other_header(good)
        return self._random.choice(STRANGERS).signed(segment(header), claims)

    def signature_by_what_is_public(self, good: Good) -> str:
        header = segment({**good.header, "alg": self._random.choice(("HS256", "HS512", good.header["alg"]))})
        content = f"{header}.{good.parts[1]}"
        secret = self._random.choice([json.dumps(key.jwk).encode() for key in KEYS] + [b"", b"secret", b"ec"])
        return f"{content}.{encoded(_HMAC.sign(content.encode(), secret))}"

    def random_signature(self, good: Good) -> str:
        size = self._random.choice((0, 1, 32, 64, 96, 132, 256))
        raw = self._random.choice((bytes(size), b"\xff" * size, self._random.randbytes(size)))
        return f"{good.parts[0]}.{good.parts[1]}.{encoded(raw)}"

    def _other_header(self, good: Good) -> dict[str, object]:
        names = ("alg", "kid", "typ", "jku", "jwk", "crit", "x5u", "b64")
        changed = self._changed(good.header, names)
        return {**changed, "alg": self._random.choice(_ALGORITHMS)} if self._random.random() < 0.5 else changed

    def _changed(self, content: Mapping[str, object], names: Sequence[str]) -> dict[str, object]:
        values = (*_VALUES, "ec", "rsa", "ed", *content.values())
        changed = {**content, self._random.choice(names): self._random.choice(values)}
        # Written otherwise, the same content is another text, which nobody has signed.
        return dict(self._random.sample(list(changed.items()), k=len(changed)))


_CHANGES: Mapping[str, Callable[[Mutator, Good], str]] = {
    change.__name__: change
    for change in (
        Mutator.letter,
        Mutator.bit_of_the_text,
        Mutator.bit_of_the_content,
        Mutator.length,
        Mutator.parts_of_others,
        Mutator.order_of_the_parts,
        Mutator.claims_under_the_signature,
        Mutator.header_over_the_signature,
        Mutator.signature_of_a_stranger,
        Mutator.signature_by_what_is_public,
        Mutator.random_signature,
    )
}
