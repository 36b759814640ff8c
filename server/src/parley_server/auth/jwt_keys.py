"""An issuer's public keys, as a JWKS has them: of each only what it was made for."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import structlog
from jwt import PyJWK
from jwt.exceptions import PyJWTError

from parley_server.auth.jwt_token import TokenRefusedError, read_object

MAX_BYTES = 64 * 1024
MAX_KEYS = 64

_KINDS: Mapping[str, tuple[str, str | None]] = {
    **dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), ("RSA", None)),
    "ES256": ("EC", "P-256"),
    "ES384": ("EC", "P-384"),
    "ES512": ("EC", "P-521"),
    "EdDSA": ("OKP", "Ed25519"),
}

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class KeySetError(Exception):
    """There is no JWKS where one has to be; the text says why in words of ours."""


class KeySet:
    """Public keys by their id and by the algorithm that each is bound to."""

    def __init__(self, keys: Mapping[tuple[str | None, str], PyJWK]) -> None:
        self._keys = keys

    @classmethod
    def read(cls, raw: bytes, algorithms: Sequence[str]) -> "KeySet":
        """Read a JWKS, and leave out the keys that none of these algorithms can use. Raises KeySetError."""
        if len(raw) > MAX_BYTES:
            raise KeySetError(f"it is larger than {MAX_BYTES} bytes")
        try:
            entries = read_object(raw).get("keys")
        except TokenRefusedError as error:
            raise KeySetError("it is no JSON object") from error
        if not isinstance(entries, list) or len(entries) > MAX_KEYS:
            raise KeySetError(f"it has no list of at most {MAX_KEYS} keys")
        found = [each for entry in entries for each in _usable(entry, algorithms)]
        count = Counter(name for name, _ in found)
        # Of two keys with one name neither: which of them was meant would be chance.
        return cls({name: key for name, key in found if count[name] == 1})

    def find(self, key_id: str | None, algorithm: str) -> PyJWK | None:
        """Return the key; one without an id only where there is no other. None where there is no such key."""
        if key_id is not None:
            return self._keys.get((key_id, algorithm))
        fitting = [key for (_, bound_to), key in self._keys.items() if bound_to == algorithm]
        return fitting[0] if len(fitting) == 1 else None

    def __len__(self) -> int:
        """Count the keys, each as often as there are algorithms for it."""
        return len(self._keys)


def _usable(entry: object, algorithms: Sequence[str]) -> Iterator[tuple[tuple[str | None, str], PyJWK]]:
    if not isinstance(entry, dict) or not _is_for_checking(entry):
        return
    key_id = entry.get("kid")
    if key_id is not None and not isinstance(key_id, str):
        return
    for algorithm in algorithms:
        if _fits(entry, algorithm) and (key := _key_of(entry, algorithm)) is not None:
            yield (key_id, algorithm), key


def _is_for_checking(entry: Mapping[str, object]) -> bool:
    """Tell whether it is a public key that checks signatures, as far as it says what it is for."""
    operations = entry.get("key_ops", ["verify"])
    can_check = isinstance(operations, list) and "verify" in operations
    return entry.get("use", "sig") == "sig" and can_check and "d" not in entry and "k" not in entry


def _fits(entry: Mapping[str, object], algorithm: str) -> bool:
    kind, curve = _KINDS[algorithm]
    is_meant = entry.get("alg", algorithm) == algorithm
    return is_meant and entry.get("kty") == kind and (curve is None or entry.get("crv") == curve)


def _key_of(entry: dict[str, object], algorithm: str) -> PyJWK | None:
    try:
        key = PyJWK.from_dict(entry, algorithm)
        too_short = key.Algorithm.check_key_length(key.key)
    except (PyJWTError, ValueError, TypeError) as error:
        too_short = type(error).__name__
        key = None
    if key is None or too_short:
        _log.warning("issuer_key_left_out", algorithm=algorithm, problem=too_short)
        return None
    return key
