"""Which keys of a JWKS are taken, and for what."""

import json
from collections.abc import Mapping

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import ECAlgorithm
from parley_server.auth.jwt_keys import MAX_KEYS, KeySet, KeySetError
from token_issuer import SigningKey

EC, RSA, ED = SigningKey.make("ec"), SigningKey.make("rsa", "RS256"), SigningKey.make("ed", "EdDSA")
ALGORITHMS = ("RS256", "RS512", "PS256", "ES256", "ES384", "EdDSA")


def read(*entries: object, algorithms: tuple[str, ...] = ALGORITHMS) -> KeySet:
    return KeySet.read(json.dumps({"keys": entries}).encode(), algorithms)


def without(jwk: Mapping[str, object], *names: str, **others: object) -> dict[str, object]:
    return {name: value for name, value in {**jwk, **others}.items() if name not in names}


def test_a_key_is_for_its_own_algorithm_alone() -> None:
    keys = read(EC.jwk, RSA.jwk, ED.jwk)
    assert len(keys) == 3
    for key in (EC, RSA, ED):
        found = keys.find(key.kid, key.alg)
        assert found is not None
        assert found.algorithm_name == key.alg
    assert keys.find("rsa", "PS256") is keys.find("ec", "RS256") is None


def test_a_key_that_names_no_algorithm_is_for_those_of_its_kind_that_the_issuer_has() -> None:
    plain = without(RSA.jwk, "alg", "use")
    keys = read(plain, algorithms=("RS256", "PS256", "ES256"))
    assert keys.find("rsa", "RS256") is not None
    assert keys.find("rsa", "PS256") is not None
    assert keys.find("rsa", "RS512") is keys.find("rsa", "ES256") is None


SMALL = SigningKey("rsa", "RS256", rsa.generate_private_key(65537, 1024))  # noqa: S505  # it has to be
BAD = {
    "for encryption": without(EC.jwk, use="enc"),
    "for signing alone": without(EC.jwk, key_ops=["sign"]),
    "operations that are none": without(EC.jwk, key_ops="verify"),
    "a private key": {**EC.jwk, **json.loads(ECAlgorithm.to_jwk(EC.private))},  # type: ignore[arg-type]  # it is one of EC
    "a shared secret": {"kty": "oct", "k": "c2VjcmV0", "kid": "ec", "alg": "HS256"},
    "a shared secret for ES256": {"kty": "oct", "k": "c2VjcmV0", "kid": "ec", "alg": "ES256"},
    "another algorithm's": without(EC.jwk, alg="HS256"),
    "another kind's": without(EC.jwk, kty="RSA"),
    "another curve's": without(EC.jwk, crv="P-384"),
    "no point of the curve": without(EC.jwk, x=EC.jwk["y"]),
    "too short": SMALL.jwk,
    "no kind": without(EC.jwk, "kty"),
    "a number for a name": without(EC.jwk, kid=7),
    "no object": "ec",
    "numbers": {"kty": "RSA", "n": 1, "e": 2, "kid": "rsa", "alg": "RS256"},
}


@pytest.mark.parametrize("entry", BAD.values(), ids=BAD.keys())
def test_what_is_no_public_key_for_signatures_is_left_out_and_the_others_stay(entry: object) -> None:
    keys = read(entry, ED.jwk)
    assert len(keys) == 1
    assert keys.find("ed", "EdDSA") is not None


def test_of_two_keys_with_one_name_neither_is_taken() -> None:
    keys = read(EC.jwk, SigningKey.make("ec").jwk, RSA.jwk)
    assert keys.find("ec", "ES256") is None
    assert keys.find("rsa", "RS256") is not None


def test_a_token_that_names_no_key_means_the_only_one_there_is() -> None:
    nameless = without(EC.jwk, "kid")
    assert read(EC.jwk, RSA.jwk).find(None, "ES256") is not None
    assert read(nameless).find(None, "ES256") is not None
    assert read(nameless).find("", "ES256") is None
    assert read(EC.jwk, nameless).find(None, "ES256") is None


@pytest.mark.parametrize("raw", [b"", b"{}", b"[]", b"\xff", b'{"keys": 1}', b"[" * 9000, b'{"keys":[NaN]}'])
def test_what_is_no_jwks_is_refused(raw: bytes) -> None:
    with pytest.raises(KeySetError):
        KeySet.read(raw, ALGORITHMS)


def test_a_jwks_has_bounds() -> None:
    assert len(read(*[{"kty": "x"}] * MAX_KEYS)) == 0
    with pytest.raises(KeySetError):
        read(*[{"kty": "x"}] * (MAX_KEYS + 1))
    with pytest.raises(KeySetError):
        read({"x": "x" * 65_536})
