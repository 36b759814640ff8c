"""The power cut itself, played on small programs."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from chaos.power_cut import PowerCut
from shim import why_not

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not())

_LIBRARY = """
import os
def put(name, text, sync=True, at=0):
    fd = os.open(name, os.O_RDWR | os.O_CREAT)
    os.pwrite(fd, text.encode(), at)
    if sync:
        os.fsync(fd)
    os.close(fd)
def sync_names():
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(fd)
    os.close(fd)
"""


class AllLost(random.Random):
    """Every cut loses all that was not synced."""

    def random(self) -> float:
        return 0.0


def after_cut(folder: Path, program: str) -> dict[str, str]:
    """Run a program in a directory, cut the power and return the files that are left."""
    root = folder / "root"
    root.mkdir()
    cut = PowerCut(root, folder / "cut", AllLost(0))
    program = f"root = {str(root)!r}\n{_LIBRARY}\na, b = (os.path.join(root, name) for name in 'ab')\n{program}\n"
    subprocess.run([sys.executable, "-c", program], check=True, env=os.environ | cut.environment())
    cut.lose_unsynced()
    return {path.name: path.read_text() for path in root.iterdir()}


@pytest.mark.parametrize(
    ("program", "left"),
    [
        ("put(a, 'synced'); sync_names()", {"a": "synced"}),
        ("put(a, 'synced')", {}),
        ("put(a, 'synced'); sync_names(); put(a, 'XX', sync=False)", {"a": "synced"}),
        ("put(a, 'synced'); sync_names(); put(a, 'XX', False, 4); put(a, 'YY', False, 2)", {"a": "synced"}),
        ("put(a, 'synced'); sync_names(); put(a, 'XX', False, 9); put(a, 'YY', True, 2)", {"a": "syYYed\0\0\0XX"}),
        ("put(a, 'synced'); sync_names(); open(a, 'w').close()", {"a": "synced"}),
        ("put(a, 'synced'); sync_names(); f = open(a, 'ab'); f.write(b'!'); f.close()", {"a": "synced"}),
        ("put(a, 'old'); sync_names(); put(b, 'new'); os.rename(b, a)", {"a": "old"}),
        ("put(a, 'old'); sync_names(); put(b, 'new'); os.rename(b, a); sync_names()", {"a": "new"}),
        ("put(a, 'synced'); sync_names(); os.unlink(a)", {"a": "synced"}),
        ("put(a, 'synced'); sync_names(); os.unlink(a); sync_names()", {}),
        ("put(a, 'synced'); sync_names(); os.link(a, b)", {"a": "synced"}),
        ("put(a, 'synced'); sync_names(); put(a, 'XX', False); os.unlink(a)", {"a": "synced"}),
    ],
)
def test_a_power_cut_leaves_what_was_synced(program: str, left: dict[str, str], tmp_path: Path) -> None:
    assert after_cut(tmp_path, program) == left


def test_some_cuts_leave_the_first_writes_of_those_that_were_not_synced(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    cut = PowerCut(root, tmp_path / "cut", random.Random(1))
    program = f"import os; fd = os.open({str(root / 'a')!r}, os.O_RDWR); [os.pwrite(fd, b'X', at) for at in range(4)]"
    outcomes = set()
    for _ in range(40):
        (root / "a").write_text("....")
        subprocess.run([sys.executable, "-S", "-c", program], check=True, env=os.environ | cut.environment())
        cut.lose_unsynced()
        outcomes.add((root / "a").read_text())
    assert outcomes == {"....", "X...", "XX..", "XXX.", "XXXX"}
