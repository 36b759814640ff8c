"""The text of API keys: what is minted is read again, and nothing else is."""

import time
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from parley_server.auth.api_key import PresentedKey

KEY = PresentedKey.mint()
BASE62 = st.sampled_from("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")


def base62(width: int) -> st.SearchStrategy[str]:
    return st.text(BASE62, min_size=width, max_size=width)


@given(base62(12), base62(43))
def test_every_key_is_read_as_it_was(key_id: str, secret: str) -> None:
    key = PresentedKey(key_id, secret)
    assert len(key.text) == len("parley_") + 12 + 1 + 43 + 1 + 6
    assert PresentedKey.parse(key.text) == key


@given(st.integers(0, len(KEY.text) - 1), st.characters(max_codepoint=0x2FF))
def test_a_key_with_one_letter_changed_is_none(place: int, letter: str) -> None:
    changed = KEY.text[:place] + letter + KEY.text[place + 1 :]
    assert PresentedKey.parse(changed) == (KEY if changed == KEY.text else None)


@given(st.text() | st.text(BASE62).map("parley_{}".format))
def test_no_other_text_is_a_key(text: str) -> None:
    assert PresentedKey.parse(text) is None


@pytest.mark.parametrize(
    "text",
    [
        KEY.text + "\n",
        " " + KEY.text,
        KEY.text[:-1],
        KEY.text + "0",
        KEY.text.replace("parley_", "parley-"),
        KEY.text.replace("parley_", "parley_parley_"),
        KEY.text.replace("_", "__"),
        KEY.text.upper(),
        KEY.text[:10] + "٣" + KEY.text[11:],
    ],
    ids=range(9),
)
def test_near_misses_are_none(text: str) -> None:
    assert PresentedKey.parse(text) is None


def test_the_checksum_is_the_crc32_of_all_before_it() -> None:
    body, _, crc = KEY.text.rpartition("_")
    number = 0
    for letter in crc:
        number = number * 62 + "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz".index(letter)
    assert number == zlib.crc32(body.encode())


def test_ids_sort_by_creation_and_secrets_are_all_different() -> None:
    keys = []
    for _ in range(5):
        keys.append(PresentedKey.mint())
        time.sleep(0.002)
    assert sorted(keys, key=lambda key: key.key_id) == keys
    assert len({key.secret for key in keys}) == 5


def test_the_hash_depends_on_the_hash_key_the_id_and_the_secret() -> None:
    hashes = {
        PresentedKey("0" * 12, "s" * 43).hash(b"k" * 32),
        PresentedKey("1" * 12, "s" * 43).hash(b"k" * 32),
        PresentedKey("0" * 12, "t" * 43).hash(b"k" * 32),
        PresentedKey("0" * 12, "s" * 43).hash(b"l" * 32),
    }
    assert len(hashes) == 4
    assert {len(digest) for digest in hashes} == {32}


def test_a_key_does_not_show_its_secret() -> None:
    assert KEY.secret not in f"{KEY} {KEY!r}"
