"""Secrets stay where they were put: all bytes that the tests' servers leave behind are searched for every secret.

Nothing has to be registered. A secret is what a test gives as one: an API key and a token (JWT), by their form; the
text of a SecretStr in this process; what a process is given in a variable of its environment that is named like one;
the keys in settings files; the files of users' credentials and of hash keys. They are searched for in every file below
the session's temporary directories, in what PostgreSQL leaves, and in what pytest captures.
"""

import hashlib
import importlib.util
import mmap
import os
import re
import shutil
import stat
import subprocess
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

# Shorter texts, and what is made up of a few characters, are words of the tests, which stand anywhere.
MIN_CHARS = 12
MIN_DISTINCT = 8
_SMALL_BYTES = 64 * 1024
# What nobody has to give: they are secrets wherever they come from.
FORMS = {
    "an API key": "parley_[0-9A-Za-z]{12}_[0-9A-Za-z]{43}_[0-9A-Za-z]{6}",
    "a token": r"eyJ[0-9A-Za-z_-]{10,}\.eyJ[0-9A-Za-z_-]{10,}\.[0-9A-Za-z_-]{20,}",
}
_FORMS = {what: re.compile(form.encode()) for what, form in FORMS.items()}
_NAMES = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD)$")
_IN_SETTINGS = re.compile(r'^\s*(?:api_key|hash_key|token|password)\s*=\s*"([^"\n]+)"', re.MULTILINE)
# Where secrets are stored on purpose, and by whom.
HOMES: Mapping[str, str] = {
    r"(^|/)auth_hash_key(\.[0-9a-f]+)?$": "the key of the keyed hashes, for its owner alone",
    r"(^|/)credentials/[^/]+/[^/]+$": "a user's credentials, for the server alone",
    r"\.toml$": "the operator's settings",
    r"(^|/)given_to_server\.txt$": "what a server of tools, a test's own, notes of what it was given",
}
_HOMES = [re.compile(pattern) for pattern in HOMES]
# What an installed package says of itself has examples of tokens.
_FOREIGN = re.compile(r"/site-packages/[^/]+\.dist-info/METADATA$")

_known: set[str] = set()


def note(secret: str) -> None:
    """Take in a secret, for the rest of the session."""
    if len(secret) >= MIN_CHARS and len(set(secret)) >= MIN_DISTINCT:
        _known.add(secret)


def note_environment(environment: Mapping[str, str]) -> None:
    """Take in what a process is given in variables that are named like secrets, and are not the names of files."""
    for name, value in environment.items():
        if _NAMES.search(name.upper()) and not value.startswith("/"):
            note(value)


def watch_this_process() -> None:
    """Take in the text of every SecretStr that is made from now on, and log as the server does, which is searched."""
    if importlib.util.find_spec("parley_server") is None:
        return  # the clients are tested without it
    import structlog  # noqa: PLC0415
    from parley_server.logs import STAMPS, line_of  # noqa: PLC0415
    from pydantic import SecretStr  # noqa: PLC0415

    structlog.configure(processors=[*STAMPS, *line_of(is_json=True)])
    make = SecretStr.__init__

    def made(self: SecretStr, secret_value: str) -> None:
        note(secret_value)
        make(self, secret_value)

    SecretStr.__init__ = made  # type: ignore[assignment, method-assign]  # every one is made by it


def is_home(path: str) -> bool:
    """Tell whether secrets are in a file of this name on purpose."""
    return any(home.search(path) for home in _HOMES)


def secrets_below(folder: Path) -> Iterator[bytes]:
    """Yield the secrets that files of a folder hold on purpose, and what the server derives of them."""
    for file in _files(folder):
        path = file.as_posix()
        if not is_home(path) or file.stat().st_size > _SMALL_BYTES:
            continue
        text = file.read_text(encoding="utf-8", errors="replace").strip()
        found = _IN_SETTINGS.findall(text) if path.endswith(".toml") else [text]
        yield from (each.encode() for each in found if len(each) >= MIN_CHARS and len(set(each)) >= MIN_DISTINCT)
        if file.name == "auth_hash_key":
            key = hashlib.blake2b(text.encode(), digest_size=32, person=b"parley-hash-key").digest()
            yield from (key, key.hex().encode())


def found_below(folder: Path, secrets: Iterable[bytes] = ()) -> list[str]:
    """Return where secrets are that should not be there, one line for each file and secret, without the secret."""
    wanted = {*secrets, *(each.encode() for each in _known), *secrets_below(folder)}
    return [
        f"{file.relative_to(folder)}: {problem}"
        for file in _suspects(folder, wanted)
        if not (is_home(file.as_posix()) or _FOREIGN.search(file.as_posix()))
        for problem in _problems_in(file, wanted)
    ]


def found_in_text(text: str) -> list[str]:
    """Return what is in a text that should not be there; see `found_below`."""
    return list(_problems(text.encode(errors="surrogatepass"), {each.encode() for each in _known}))


def _suspects(folder: Path, wanted: Collection[bytes]) -> Collection[Path]:
    """Return the files that are worth a closer look: those that grep, ten times as fast, finds something in."""
    # A pattern is a line of text; of a key as bytes its longest part that is one.
    lines = [max(re.split(rb"[\n\0]", each), key=len) for each in wanted]
    if (grep := shutil.which("grep")) is None:
        return list(_files(folder))
    found: set[Path] = set()
    for form, patterns in (("-E", [form.encode() for form in FORMS.values()]), ("-F", lines)):
        command = [grep, "-rlsaZ", form, "-f", "-", str(folder)]
        done = subprocess.run(
            command, input=b"\n".join(patterns), env={"LC_ALL": "C"}, capture_output=True, check=False
        )
        found |= {Path(os.fsdecode(name)) for name in done.stdout.split(b"\0") if name and patterns}
        if done.returncode > 1:  # something could not be read
            return list(_files(folder))
    return sorted(file for file in found if stat.S_ISREG(file.lstat().st_mode))


def _problems_in(file: Path, wanted: Collection[bytes]) -> Iterator[str]:
    with file.open("rb") as opened:
        seen = os.fstat(opened.fileno())
        is_private = not seen.st_mode & 0o077
        if is_private and seen.st_size < _SMALL_BYTES and opened.read().strip() in wanted:
            return  # nothing else is in it, and nobody else reads it: that is how a secret is kept
        if seen.st_size:
            with mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
                yield from _problems(content, wanted)


def _problems(content: bytes | mmap.mmap, wanted: Iterable[bytes]) -> Iterator[str]:
    for what, form in _FORMS.items():
        if match := form.search(content):
            yield f"{what} that begins with {match[0][:10]!r}, at byte {match.start()}"
    for secret in wanted:
        if (place := content.find(secret)) >= 0:
            yield f"a secret of {len(secret)} bytes that begins with {secret[:3]!r}, at byte {place}"


def _files(folder: Path) -> Iterator[Path]:
    for parent, _, names in os.walk(folder):
        for name in names:
            file = Path(parent, name)
            if stat.S_ISREG(file.lstat().st_mode):
                yield file
