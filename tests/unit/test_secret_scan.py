"""The search for secrets finds what is planted, wherever and however, and nothing where there is nothing."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import secret_scan

ROOT = Path(__file__).resolve().parents[2]
# Tests of a session of their own. Each leaves a secret where nobody should find it.
PLANTED = """
import jwt, os, sqlite3, subprocess, sys
from parley_server.auth.api_key import PresentedKey
from parley_server.auth.hash_key import load_hash_key
from pydantic import SecretStr
from nursery import begun

def test_key(tmp_path):
    (tmp_path / "server.log").write_text(f'{{"event": "call", "peer": "{PresentedKey.mint().text}"}}')

def test_token(tmp_path):
    (tmp_path / "server.log").write_text(jwt.encode({"sub": "ann"}, "k" * 32, "HS256"))

def test_text(tmp_path):
    with sqlite3.connect(tmp_path / "parley.db") as database:
        database.execute("CREATE TABLE t (x)")
        secret = SecretStr("sk-planted-in-a-database")
        database.execute("INSERT INTO t VALUES (?)", ["given " + secret.get_secret_value()])
    database.close()

def test_environment(tmp_path):
    command = [sys.executable, "-c", "import os; print(os.environ['MAPS_TOKEN'])"]
    environment = os.environ | {"MAPS_TOKEN": "planted-in-an-environment"}
    begun(command, environment, tmp_path, tmp_path / "said.txt", tmp_path / "errors.txt").wait()

def test_credential(tmp_path):
    file = tmp_path / "credentials" / "ann" / "github"
    file.parent.mkdir(parents=True)
    file.write_text("planted-as-a-credential")
    (tmp_path / "parley.db-wal").write_bytes(b"\\0planted-as-a-credential\\0")

def test_settings(tmp_path):
    (tmp_path / "parley.toml").write_text('[model]\\napi_key = "planted-in-the-settings"')
    (tmp_path / "copy").write_text("planted-in-the-settings")

def test_hash_key(tmp_path):
    (tmp_path / "raw").write_bytes(b"x" + load_hash_key(None, None, tmp_path))

def test_private(tmp_path):
    file = tmp_path / "github"
    file.write_text(SecretStr("kept-as-secrets-are-kept").get_secret_value())
    file.chmod(0o600)

def test_print():
    print("the key is", SecretStr("planted-in-what-is-said").get_secret_value())
"""
CLEAN = """
from pydantic import SecretStr

def test_clean(tmp_path):
    (tmp_path / "log").write_text(f"the key is {SecretStr('planted-nowhere-at-all')}")
"""


def session(folder: Path, source: str) -> tuple[int, str]:
    """Run tests as ours are run, in a session of their own."""
    file = folder / "test_planted.py"
    file.write_text(source, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "conftest", f"--rootdir={ROOT}", f"-c{ROOT}/pyproject.toml"]
    done = subprocess.run(
        [*command, f"--basetemp={folder / 'base'}", str(file)], cwd=ROOT, check=False, capture_output=True, text=True
    )
    # Or this session's own search would find it.
    shutil.rmtree(folder)
    return done.returncode, done.stdout


def test_what_is_planted_fails_the_session_by_the_name_of_its_file(tmp_path: Path) -> None:
    code, said = session(tmp_path, PLANTED)
    found = said.partition("secrets are where nobody put them:\n")[2].partition("\n---")[0].splitlines()
    assert code == 1
    assert sorted(line.partition(":")[0] for line in found) == [
        "test_credential0/parley.db-wal",
        "test_environment0/said.txt",
        "test_hash_key0/raw",
        "test_key0/server.log",
        "test_settings0/copy",
        "test_text0/parley.db",
        "test_token0/server.log",
    ]
    assert "planted-" not in "".join(found)
    assert "secrets are in what is said" in said
    assert "1 failed, 8 passed, 1 error" in said


def test_a_session_without_leaks_passes(tmp_path: Path) -> None:
    assert session(tmp_path, CLEAN)[0] == 0


@pytest.mark.parametrize("home", ["a/auth_hash_key", "a/credentials/ann/github", "a/parley.toml"])
def test_secrets_are_stored_where_it_says(home: str) -> None:
    assert secret_scan.is_home(home)


@pytest.mark.parametrize("other", ["a/auth_hash_key.log", "a/credentials/ann", "a/parley.db", "a/parley.toml.log"])
def test_no_other_file_is_one_of_those(other: str) -> None:
    assert not secret_scan.is_home(other)
