"""The check that wants a reason for whatever the server keeps without a user: it holds, and it finds each kind."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "check_caches.py"

IN_A_CLASS = "class Titles:\n    def __init__(self):\n        {}\n"
# What somebody might write, and the name it is found by.
PLANTED = {
    "@lru_cache(maxsize=8)\ndef title_of(text): ...": "title_of",
    "@functools.cache\ndef title_of(text): ...": "title_of",
    "class Titles:\n    @functools.cached_property\n    def last(self): ...": "Titles.last",
    "def opened():\n    return lru_cache(8)(print)": "opened",
    "_titles = {}": "_titles",
    "_titles: dict[str, str] = dict()": "_titles",
    "_titles = [1]\ndef keep(title):\n    _titles.append(title)": "_titles",
    "_titles = {'a': 1}\ndef keep(title):\n    _titles[title] = 1": "_titles",
    "_last = ''\ndef keep(title):\n    global _last\n    _last = title": "keep._last",
    "class Titles:\n    seen = {}": "Titles.seen",
    IN_A_CLASS.format("self._titles = {}"): "Titles._titles",
    IN_A_CLASS.format("self._titles: dict[str, str] = {}"): "Titles._titles",
    IN_A_CLASS.format("self._titles = defaultdict(list)"): "Titles._titles",
    IN_A_CLASS.format("self._titles = OrderedDict()"): "Titles._titles",
    IN_A_CLASS.format(
        "self._titles = dict(known)\n    def keep(self, title): self._titles[title] = 1"
    ): "Titles._titles",
    IN_A_CLASS.format("self._titles = dict(a)\n    def keep(self, b): self._titles.update(b)"): "Titles._titles",
    IN_A_CLASS.format("self._titles = WeakValueDictionary()"): "Titles._titles",
    IN_A_CLASS.format("self._idle = []\n    def take(self): return self._idle.pop()"): "Titles._idle",
    IN_A_CLASS.format("self._idle = deque()\n    def take(self): return self._idle.popleft()"): "Titles._idle",
    IN_A_CLASS.format("self._idle: list[aiosqlite.Connection] = []"): "Titles._idle",
    IN_A_CLASS.format("self._idle = asyncio.LifoQueue(4)"): "Titles._idle",
    "async def opened():\n    return await asyncpg.create_pool('')": "opened",
    "@dataclass\nclass Titles:\n    seen: dict[str, str] = field(default_factory=dict)": "Titles.seen",
    "import tempfile": "tempfile",
    "from tempfile import mkstemp": "tempfile",
    "def spill(path, text):\n    path.write_text(text)": "spill",
    "def spill(path, text):\n    with open(path, 'w') as file: file.write(text)": "spill",
    "def spill(path, text):\n    with path.open(mode='ab') as file: file.write(text)": "spill",
    "def spill(path):\n    return os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)": "spill",
    "user = ContextVar('user')": "",
    "class Titles:\n    here = threading.local()": "Titles",
    "def bind(user):\n    structlog.contextvars.bind_contextvars(user=user)": "bind",
    "def begin(work):\n    asyncio.create_task(work)": "begin",
}
# What is nobody's, or is over with the call.
HARMLESS = (
    "_KINDS = {'a': 1}",
    "def names(rows):\n    found = {}\n    for row in rows: found[row] = 1\n    return found",
    "def read(path):\n    with path.open('rb') as file: return file.read()",
    "@dataclass(frozen=True)\nclass Page:\n    labels: dict[str, str] = field(default_factory=dict)",
    IN_A_CLASS.format("self._rules = dict(rules)"),
    IN_A_CLASS.format("self._ended = Counter('ended_total', 'Runs that ended.')"),
    IN_A_CLASS.format("self._places: UserMap[str, int] = UserMap()"),
    "def begin(work):\n    asyncio.create_task(work, context=contextvars.Context())",
)


def checked(folder: Path, source: str, reasons: str = "kept = []") -> tuple[int, str]:
    (folder / "module.py").write_text(source, encoding="utf-8")
    (folder / "shared_state.toml").write_text(reasons, encoding="utf-8")
    done = subprocess.run([sys.executable, str(SCRIPT), str(folder)], check=False, capture_output=True, text=True)
    return done.returncode, done.stderr


def reason_for(name: str) -> str:
    return f'[[kept]]\nreason = "Nobody\'s."\nnames = ["module.py:{name}"]'


def test_the_server_keeps_nothing_without_a_user_or_a_reason() -> None:
    done = subprocess.run([sys.executable, str(SCRIPT)], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("source", PLANTED)
def test_what_is_kept_without_a_user_is_found_and_passes_with_a_reason(tmp_path: Path, source: str) -> None:
    name = PLANTED[source]
    code, said = checked(tmp_path, source)
    assert code == 1
    assert said.startswith(f"module.py:{name} (line ")
    assert len(said.splitlines()) == 1
    assert checked(tmp_path, source, reason_for(name)) == (0, "")


@pytest.mark.parametrize("source", HARMLESS)
def test_what_can_carry_nothing_needs_no_reason(tmp_path: Path, source: str) -> None:
    assert checked(tmp_path, source) == (0, "")


def test_a_reason_that_is_for_nothing_is_found(tmp_path: Path) -> None:
    code, said = checked(tmp_path, "", reason_for("gone"))
    assert (code, said) == (1, "module.py:gone is in shared_state.toml and keeps nothing: remove it there\n")
