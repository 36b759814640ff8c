"""Secrets in files: each user's own, read anew, never by a way that leads out of his directory."""

import stat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from parley_server.domain.errors import StartError
from parley_server.domain.principal import USER_ID_PATTERN
from parley_server.tools.credentials.directory import CredentialDirectory
from parley_server.tools.credentials.secret_file import MAX_BYTES
from parley_server.tools.credentials.source import CredentialsUnavailableError
from parley_server.tools.credentials.user_name import directory_name, user_of
from pydantic import SecretStr

USER_IDS = st.from_regex(USER_ID_PATTERN, fullmatch=True).map(lambda text: text.rstrip("\n"))


async def found(directory: CredentialDirectory, user_id: str = "ann", slot: str = "github") -> str | None:
    secret = await directory.find(user_id, slot)
    return None if secret is None else secret.get_secret_value()


@settings(max_examples=30)
@given(st.lists(USER_IDS, unique=True, max_size=8))
def test_no_two_users_share_a_directory_whatever_the_file_system(user_ids: list[str]) -> None:
    names = [directory_name(user_id) for user_id in user_ids]
    assert len({name.casefold() for name in names}) == len(user_ids)
    for user_id, name in zip(user_ids, names, strict=True):
        assert len(name) <= 255
        assert "/" not in name
        assert not name.startswith(".")
        assert user_of(name) in {user_id, None}
        assert user_of(name) == user_id or len(user_id) > 60


@pytest.mark.parametrize(
    ("user_id", "name"),
    [("ann", "ann"), ("Ann", "%41nn"), ("telegram:42", "telegram%3a42"), ("a.b@c.de", "a.b@c.de"), ("a.", "a%2e")],
)
def test_names_can_be_written_by_hand(user_id: str, name: str) -> None:
    assert directory_name(user_id) == name


async def test_what_is_put_is_found_by_its_user_alone_until_it_is_deleted(tmp_path: Path) -> None:
    directory = CredentialDirectory(tmp_path / "new" / "credentials")
    assert await found(directory) is None
    assert list(directory.list()) == []
    for user_id in ("ann", "Ann", "x" * 128, "X" * 128):
        directory.put(user_id, "github", SecretStr(f"secret of {user_id}"))
    for user_id in ("ann", "Ann", "x" * 128, "X" * 128):
        assert await found(directory, user_id) == f"secret of {user_id}"
    assert await found(directory, "bob") is None
    assert [each.user_id for each in directory.list("Ann")] == ["Ann"]
    assert len(list(directory.list())) == 4
    assert directory.delete("ann", "github")
    assert not directory.delete("ann", "github")
    assert await found(directory) is None


async def test_files_are_their_owners_alone_and_replaced_whole(tmp_path: Path) -> None:
    directory = CredentialDirectory(tmp_path / "credentials")
    for secret in ("first", "second, which is longer"):
        directory.put("ann", "github", SecretStr(secret))
        assert await found(directory) == secret
    [file] = [path for path in tmp_path.rglob("*") if path.is_file()]
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (file, file.parent, file.parent.parent)]
    assert modes == [0o600, 0o700, 0o700]


async def test_a_mounted_secret_is_read_as_it_is_now(tmp_path: Path) -> None:
    """As a container's platform mounts them: links within the directory, of which one is exchanged for another."""
    own = tmp_path / "ann"
    for version, secret in (("..1", "old\n"), ("..2", "new\r\n")):
        (own / version).mkdir(parents=True)
        (own / version / "github").write_bytes(secret.encode())
    (own / "..data").symlink_to("..1")
    (own / "github").symlink_to("..data/github")
    directory = CredentialDirectory(tmp_path)
    assert await found(directory) == "old"
    (own / "..next").symlink_to("..2")
    (own / "..next").replace(own / "..data")
    assert await found(directory) == "new"


@pytest.mark.parametrize("target", ["../bob/github", "/etc/passwd", "../../outside"])
async def test_no_link_leads_out_of_a_users_directory(tmp_path: Path, target: str) -> None:
    directory = CredentialDirectory(tmp_path / "credentials")
    directory.put("bob", "github", SecretStr("of bob"))
    directory.put("ann", "other", SecretStr("of ann"))
    (tmp_path / "outside").write_text("outside")
    (tmp_path / "credentials" / "ann" / "github").symlink_to(target)
    with pytest.raises(CredentialsUnavailableError):
        await directory.find("ann", "github")


async def test_one_users_directory_cannot_be_anothers(tmp_path: Path) -> None:
    directory = CredentialDirectory(tmp_path)
    directory.put("bob", "github", SecretStr("of bob"))
    (tmp_path / "ann").symlink_to("bob")
    (tmp_path / "loop").symlink_to("loop")
    for user_id in ("ann", "loop"):
        with pytest.raises(CredentialsUnavailableError):
            await directory.find(user_id, "github")


@pytest.mark.parametrize("slot", ["../bob/github", "..", ".", "", "GitHub", "a/b", "a\0b", "x" * 65])
async def test_what_is_no_slot_is_not_looked_for(tmp_path: Path, slot: str) -> None:
    directory = CredentialDirectory(tmp_path)
    directory.put("bob", "github", SecretStr("of bob"))
    assert await directory.find("ann", slot) is None


@pytest.mark.parametrize("content", [b"", b"\n", b" \n"])
async def test_an_empty_file_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "ann").mkdir()
    (tmp_path / "ann" / "github").write_bytes(content)
    assert await found(CredentialDirectory(tmp_path)) is None


async def test_what_is_no_secret_is_refused_and_not_told(tmp_path: Path) -> None:
    directory = tmp_path / "credentials"
    own = directory / "ann"
    own.mkdir(parents=True)
    (own / "github").write_bytes(b"\xffhunter2")
    (own / "large").write_bytes(b"hunter2" * MAX_BYTES)
    (own / "folder").mkdir()
    for slot in ("github", "large", "folder"):
        with pytest.raises(CredentialsUnavailableError) as refused:
            await CredentialDirectory(directory).find("ann", slot)
        assert "hunter2" not in str(refused.value)
        assert refused.value.__context__ is None or "hunter2" not in str(refused.value.__context__)


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StartError, match="cannot be written"):
        CredentialDirectory(tmp_path / "file").put("ann", "github", SecretStr("x"))


async def test_all_of_a_user_goes_with_his_directory_and_what_it_links_to_stays(tmp_path: Path) -> None:
    directory, mounted = CredentialDirectory(tmp_path / "secrets"), tmp_path / "mounted"
    mounted.write_text("mounted")
    for user_id in ("ann", "bob"):
        for slot in ("github", "mail"):
            directory.put(user_id, slot, SecretStr(f"{slot} of {user_id}"))
    (tmp_path / "secrets" / "ann" / "linked").symlink_to(mounted)
    for _ in range(2):
        directory.delete_all("ann")
    assert [each.user_id for each in directory.list()] == ["bob", "bob"]
    assert not (tmp_path / "secrets" / "ann").exists()
    assert mounted.read_text() == "mounted"
    assert await found(directory, "bob") == "github of bob"
