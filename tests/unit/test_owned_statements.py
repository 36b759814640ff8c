"""The check that every statement of the store says whose rows it means: it holds, and it finds those that do not."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "check_statements.py"

# What somebody might write, and where it is found.
UNOWNED = {
    "_GET = select(runs).where(runs.c.run_id == bindparam('run_id'))": "_GET",
    "_GET: Select = select(runs)": "_GET",
    "_END = update(runs).where(runs.c.run_id == 1).values(user_id=bindparam('user_id'))": "_END",
    "_GET = text('SELECT * FROM runs WHERE run_id = :run_id')": "_GET",
    "_OWN = (runs.c.run_id == 1,)\n_GET = select(runs).where(*_OWN).limit(1)": "_GET",
    "class Any:\n    def get(self, run_id):\n        return select(runs).where(runs.c.run_id == run_id)": "Any.get",
    "def forget(run_id):\n    connection.execute(delete(runs).where(runs.c.run_id == run_id))": "forget",
    "def get(user_id, run_id):\n    def tx(connection):\n        return select(runs).where(runs.c.run_id == run_id)\n"
    "    return tx": "get",
    "def one(u):\n    own = runs.c.user_id == u\n    return select(runs).where(own)\n"
    "def other(run_id):\n    own = runs.c.run_id == run_id\n    return select(runs).where(own)": "other",
}
OWNED = (
    "_GET = select(runs).where(runs.c.user_id == bindparam('user_id'), runs.c.run_id == bindparam('run_id'))",
    "_OWN = (runs.c.user_id == bindparam('user_id'),)\n_GET = select(runs).where(*_OWN).limit(1)",
    "_GET = text('SELECT * FROM runs WHERE user_id = :user_id')",
    "def get(context):\n    own = runs.c.user_id == context.user_id\n    return delete(runs).where(own)",
    "def _own(u):\n    return runs.c.user_id == u\ndef get(u):\n    return select(runs).where(_own(u))",
    "_ADD = text('INSERT INTO runs (run_id) VALUES (:run_id)')",
)


def checked(folder: Path, source: str, reasons: str = "kept = []") -> tuple[int, str]:
    (folder / "module.py").write_text(source, encoding="utf-8")
    (folder / "unowned_statements.toml").write_text(reasons, encoding="utf-8")
    done = subprocess.run([sys.executable, str(SCRIPT), str(folder)], check=False, capture_output=True, text=True)
    return done.returncode, done.stderr


def reason_for(name: str) -> str:
    return f'[[kept]]\nreason = "The worker\'s."\nnames = ["{name}"]'


def test_no_statement_of_the_store_takes_rows_by_an_id_alone_without_a_reason() -> None:
    done = subprocess.run([sys.executable, str(SCRIPT)], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("source", UNOWNED)
def test_a_statement_that_does_not_say_whose_is_found_and_passes_with_a_reason(tmp_path: Path, source: str) -> None:
    name = f"module.py:{UNOWNED[source]}"
    code, said = checked(tmp_path, source)
    assert code == 1
    assert said.startswith(f"{name} (line ")
    assert len(said.splitlines()) == 1
    for listed in (name, "module.py"):
        assert checked(tmp_path, source, reason_for(listed)) == (0, "")


@pytest.mark.parametrize("source", OWNED)
def test_a_statement_that_says_whose_needs_no_reason(tmp_path: Path, source: str) -> None:
    assert checked(tmp_path, source) == (0, "")


def test_a_reason_that_is_for_nothing_is_found(tmp_path: Path) -> None:
    code, said = checked(tmp_path, OWNED[0], reason_for("module.py:_GET"))
    assert code == 1
    assert said == "module.py:_GET is in unowned_statements.toml and says whose: remove it there\n"
