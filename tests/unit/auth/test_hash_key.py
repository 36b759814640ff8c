"""The key of the keyed hashes: made once, kept private, the same after a restart."""

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from parley_server.auth.hash_key import DEFAULT_FILE_NAME, load_hash_key
from parley_server.domain.errors import StartError

LONG = "a long text that nobody guesses, ever"


def test_a_key_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    data_dir = tmp_path / "new"
    first = load_hash_key(None, None, data_dir)
    file = data_dir / DEFAULT_FILE_NAME
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(data_dir.stat().st_mode) == 0o700
    assert len(first) == 32
    assert load_hash_key(None, None, data_dir) == first
    assert [path.name for path in data_dir.iterdir()] == [DEFAULT_FILE_NAME]
    assert load_hash_key(None, None, tmp_path / "other") != first


def test_all_who_start_together_get_one_key(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as threads:
        keys = set(threads.map(lambda _: load_hash_key(None, None, tmp_path), range(32)))
    assert len(keys) == 1
    assert [path.name for path in tmp_path.iterdir()] == [DEFAULT_FILE_NAME]


def test_a_key_of_the_settings_comes_first_and_blanks_around_it_do_not_count(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(f"{LONG}\n")
    assert load_hash_key(LONG, None, tmp_path) == load_hash_key(None, file, tmp_path)
    assert load_hash_key(LONG + "!", file, tmp_path) != load_hash_key(None, file, tmp_path)
    assert not (tmp_path / DEFAULT_FILE_NAME).exists()


@pytest.mark.parametrize("configured", ["", " " * 40, "x" * 31])
def test_a_short_key_is_refused_without_being_shown(configured: str, tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"\[auth\] hash_key holds less than 32 characters") as error:
        load_hash_key(configured, None, tmp_path)
    assert "xxxx" not in str(error.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="nowhere"):
        load_hash_key(None, tmp_path / "nowhere", tmp_path)


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StartError, match="cannot be made"):
        load_hash_key(None, None, tmp_path / "file" / "data")
