"""The command line: what it prints, where, and how it ends."""

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from parley_server.auth.api_key import PresentedKey
from parley_server.cli import cli

CLEAN = {"PARLEY_HOME": None, "OPENAI_API_KEY": None, "OPENAI_BASE_URL": None}


@pytest.fixture
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty data directory; the working directory has no parley.toml."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / "data"


def run(*arguments: str, **environment: str) -> Result:
    return CliRunner(env={**CLEAN, **environment}).invoke(cli, arguments, prog_name="parley-server")


def program(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run it in a process of its own: what a command sets up for good, as the log, ends with it."""
    command = [sys.executable, "-m", "parley_server", *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True)


def test_help_names_every_command_and_imports_nothing_heavy() -> None:
    assert all(name in run("--help").output for name in ("serve", "keys", "config", "models", "db", "offline-model"))
    program = (
        "import sys, parley_server.cli; print([m for m in ('grpc', 'pydantic', 'sqlalchemy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_a_key_is_printed_alone_listed_without_its_secret_and_revoked(data_dir: Path) -> None:
    where = ("--data-dir", str(data_dir))
    made = run("keys", "create", "--service", "bot", "--act-as", "tg:*", "--scope", "runs:read", *where)
    key = PresentedKey.parse(made.stdout.removesuffix("\n"))
    assert key is not None
    listed = run("keys", "list", *where).stdout
    assert key.secret not in listed
    assert all(word in listed for word in (key.key_id, "service:bot", "runs:read", "expires 2", "act as tg:*"))
    assert run("keys", "revoke", key.key_id, *where).exit_code == 0
    assert "revoked" in run("keys", "list", *where).stdout
    unknown = run("keys", "revoke", "nothing", *where)
    assert (unknown.exit_code, unknown.stderr) == (
        1,
        "parley-server: no key has this id; `parley-server keys list` shows all\n",
    )


def test_a_rotated_key_has_a_new_secret_and_for_a_while_the_old_one(data_dir: Path) -> None:
    where = ("--data-dir", str(data_dir))
    made = run("keys", "create", "--user", "ann", "--expires", "30m", *where).stdout.strip()
    key_id = made.split("_")[1]
    rotated = run("keys", "rotate", key_id, "--overlap", "24h", "--expires", "365d", *where).stdout.strip()
    parsed = PresentedKey.parse(rotated)
    assert parsed is not None
    assert (parsed.key_id, rotated == made) == (key_id, False)
    listed = run("keys", "list", *where).stdout
    assert listed.count("\n") == 1
    assert "  never used  old secret until 2" in listed
    assert "old secret" not in run("keys", "rotate", key_id, *where).stdout + run("keys", "list", *where).stdout


@pytest.mark.parametrize(
    ("arguments", "exit_code", "words"),
    [
        ((), 1, "no key in force has this id"),
        (("--overlap", "8d"), 1, "overlap: is at most 7 days"),
        (("--overlap", "1"), 2, "write 24h, 30m or 0"),
        (("--overlap", "-1h"), 2, "write 24h, 30m or 0"),
        (("--expires", "never"), 2, "write 90d, 12h or 30m"),
        (("--expires", "0d"), 2, "write 90d, 12h or 30m"),
    ],
)
def test_a_rotation_that_makes_no_sense_is_refused(
    data_dir: Path, arguments: tuple[str, ...], exit_code: int, words: str
) -> None:
    refused = run("keys", "rotate", "nothing", *arguments, "--data-dir", str(data_dir))
    assert (refused.exit_code, refused.stdout) == (exit_code, "")
    assert words in refused.stderr


@pytest.mark.parametrize("command", ["rotate", "revoke"])
def test_the_whole_key_is_no_id_and_is_not_repeated(data_dir: Path, command: str) -> None:
    where = ("--data-dir", str(data_dir))
    made = run("keys", "create", "--user", "ann", *where).stdout.strip()
    for text in (made, "", "\udcff", "x" * 65):
        refused = run("keys", command, text, *where)
        assert (refused.exit_code, "`keys list` shows it" in refused.stderr) == (2, True)
        assert made not in refused.stderr


@pytest.mark.parametrize(("expires", "shown"), [("never", "no expiry"), ("30m", "expires 2"), ("3650d", "expires 20")])
def test_a_key_expires_when_it_is_told_to(data_dir: Path, expires: str, shown: str) -> None:
    where = ("--data-dir", str(data_dir))
    assert run("keys", "create", "--user", "ann", "--expires", expires, *where).exit_code == 0
    assert shown in run("keys", "list", *where).stdout


@pytest.mark.parametrize(
    ("arguments", "exit_code", "words"),
    [
        ((), 2, "name either --user or --service"),
        (("--user", "a", "--service", "b"), 2, "name either --user or --service"),
        (("--user", "ann", "--expires", "90"), 2, "write 90d, 12h, 30m or never"),
        (("--user", "ann", "--expires", "0d"), 2, "write 90d, 12h, 30m or never"),
        (("--user", "a b"), 1, "principal: not a well-formed name"),
        (("--user", "ann", "--scope", "everything"), 1, "no such scope: everything"),
        (("--user", "ann", "--act-as", "bob"), 1, "act_as: is for services only"),
    ],
)
def test_a_key_that_makes_no_sense_is_refused(
    data_dir: Path, arguments: tuple[str, ...], exit_code: int, words: str
) -> None:
    refused = run("keys", "create", *arguments, "--data-dir", str(data_dir))
    assert (refused.exit_code, refused.stdout) == (exit_code, "")
    assert words in refused.stderr


def test_the_settings_are_checked_and_shown_without_secrets(data_dir: Path) -> None:
    (data_dir.parent / "parley.toml").write_text('[model]\napi_key = "sk-secret"\n[auth]\nlocal = false\n')
    where = ("--data-dir", str(data_dir))
    assert run("config", "check", *where).stdout == f"ok: parley.toml, data in {data_dir}\n"
    shown = run("config", "show", *where).stdout
    assert "local = false" in shown
    assert "sk-secret" not in shown
    assert run("config", "show", "--redacted", *where).stdout == shown
    assert 'api_key = "sk-secret"' in run("config", "show", "--with-secrets", *where).stdout


def test_what_is_shown_is_a_configuration_file_that_gives_the_same(data_dir: Path, tmp_path: Path) -> None:
    (data_dir.parent / "parley.toml").write_text('[model]\napi_key = "sk-\\"x"\n[server]\nlisten = "unix:/ä b"\n')
    shown = run("config", "show", "--with-secrets", "--data-dir", str(data_dir)).stdout
    copy = tmp_path / "copy.toml"
    copy.write_text(shown, encoding="utf-8")
    again = run("config", "show", "--with-secrets", "--data-dir", str(data_dir), "--config", str(copy)).stdout
    assert again.splitlines()[2:] == shown.splitlines()[2:]


def test_a_check_tells_all_that_is_wrong(data_dir: Path) -> None:
    (data_dir.parent / "parley.toml").write_text('[model]\nnmae = "m"\n[serverr]\n[log]\nlevel = "loud"\nformat = 1\n')
    failed = run("config", "check", "--data-dir", str(data_dir), PARLEY_AUTH__LOCAL="perhaps", PARLEY_LOG_LEVEL="info")
    assert failed.exit_code == 78
    lines = failed.stderr.splitlines()
    assert all(line.startswith("parley-server: ") for line in lines)
    for words in ("[serverr]", "PARLEY_LOG_LEVEL is not", "[auth] local", "[log] level", "[log] format", "mean name?"):
        assert sum(words in line for line in lines) == 1, words
    assert len(lines) == 6


@pytest.mark.parametrize(("listen", "words"), [("nowhere", "is no address"), ("0.0.0.0:1", "reachable from other")])
def test_a_check_refuses_an_address_that_the_server_would_refuse(data_dir: Path, listen: str, words: str) -> None:
    failed = run("config", "check", "--data-dir", str(data_dir), PARLEY_SERVER__LISTEN=listen)
    assert (failed.exit_code, words in failed.stderr) == (78, True)


def test_a_wrong_setting_ends_every_command_with_one_sentence(data_dir: Path) -> None:
    for command in (("config", "check"), ("serve",), ("keys", "list"), ("db", "upgrade")):
        failed = run(*command, "--data-dir", str(data_dir), PARLEY_LOG__LEVEL="loud")
        assert (failed.exit_code, failed.stdout) == (78, "")
        assert failed.stderr.startswith("parley-server: environment variable PARLEY_LOG__LEVEL: [log] level: ")
        assert failed.stderr.count("\n") == 1


@pytest.mark.parametrize("place", ["file", "/proc/self"])
@pytest.mark.parametrize("command", [("serve",), ("keys", "list"), ("db", "upgrade")], ids=" ".join)
def test_a_data_directory_that_is_none_is_said_to_be(data_dir: Path, command: tuple[str, ...], place: str) -> None:
    (data_dir.parent / "file").touch()
    failed = program(*command, "--data-dir", str(data_dir.parent / place))
    assert (failed.returncode, failed.stdout, failed.stderr.count("\n")) == (78, "", 1)
    assert "cannot be" in failed.stderr


def test_the_database_is_made_and_upgrading_it_again_is_no_error(data_dir: Path) -> None:
    for _ in range(2):
        assert run("db", "upgrade", "--data-dir", str(data_dir)).exit_code == 0
    assert (data_dir / "parley.db").is_file()


def test_the_offline_model_refuses_what_is_no_address() -> None:
    failed = program("offline-model", "--listen", "nowhere")
    assert (failed.returncode, failed.stderr) == (78, "parley-server: not HOST:PORT: 'nowhere'\n")


def stored(data_dir: Path, user: str, slot: str, given: str) -> Result:
    """Run `credentials set` with something on its standard input."""
    where = ("--user", user, "--slot", slot, "--data-dir", str(data_dir))
    return CliRunner(env=CLEAN).invoke(cli, ["credentials", "set", *where], input=given, prog_name="parley-server")


def test_credentials_are_stored_listed_without_what_they_are_and_deleted(data_dir: Path) -> None:
    for user in ("bob", "Ann@example.org"):
        assert stored(data_dir, user, "github", "hunter2\n").output == ""
    listed = run("credentials", "list", "--data-dir", str(data_dir)).output
    assert [line.split("  ")[:2] for line in listed.splitlines()] == [["Ann@example.org", "github"], ["bob", "github"]]
    assert "hunter2" not in listed
    assert (data_dir / "credentials" / "bob" / "github").read_text() == "hunter2"
    where = ("--user", "bob", "--slot", "github", "--data-dir", str(data_dir))
    assert run("credentials", "delete", *where).exit_code == 0
    again = run("credentials", "delete", *where)
    assert (again.exit_code, "no secret of this slot" in again.output) == (1, True)
    assert "bob" not in run("credentials", "list", "--data-dir", str(data_dir)).output
    assert run("credentials", "list", "--user", "bob", "--data-dir", str(data_dir)).output == ""


@pytest.mark.parametrize(
    ("user", "slot", "given", "code"),
    [
        ("ann", "github", "", 1),
        ("ann", "github", " \n", 1),
        ("ann", "github", "x" * 70_000, 1),
        ("ann", "hunter2!", "x", 2),
        ("../ann", "github", "x", 2),
    ],
)
def test_a_credential_that_cannot_be_is_not_stored(data_dir: Path, user: str, slot: str, given: str, code: int) -> None:
    refused = stored(data_dir, user, slot, given)
    assert refused.exit_code == code
    assert "hunter2" not in refused.output
    assert not (data_dir / "credentials").exists()
