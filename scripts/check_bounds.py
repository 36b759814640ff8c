"""Run a part of the tests on the oldest, or the newest, dependencies that the pyproject files allow.

    python scripts/check_bounds.py lowest        what every `>=` names itself
    python scripts/check_bounds.py newest        what the index has today

Each has a virtual environment of its own, `.venv-lowest` and `.venv-newest`, and is resolved afresh every time. The
tools that run the tests are those of requirements.lock. Needs uv.
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DISTRIBUTIONS = ("protos/gen/python", "server", "clients/python", "plugins/console")
TOOLS = ("h2", "hypothesis", "pexpect", "pytest", "pytest-asyncio", "pytest-timeout")
TESTS = ("tests/contract", "tests/e2e/test_runs.py")
RESOLUTIONS = {"lowest": "lowest-direct", "newest": "highest"}


def main(arguments: Sequence[str]) -> int:
    """Run the command line; return the exit code of the tests."""
    if len(arguments) != 1 or arguments[0] not in RESOLUTIONS:
        sys.exit(f"usage: check_bounds.py {'|'.join(RESOLUTIONS)}")
    uv = shutil.which("uv")
    if uv is None:
        sys.exit("check_bounds: needs uv")
    folder = ROOT / f".venv-{arguments[0]}"
    make_environment(uv, folder, RESOLUTIONS[arguments[0]])
    return subprocess.run([folder / "bin" / "python", "-m", "pytest", "-q", *TESTS], cwd=ROOT, check=False).returncode


def make_environment(uv: str, folder: Path, resolution: str) -> None:
    """Make a virtual environment with our distributions and the dependencies that this resolution chooses."""
    run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)])
    resolved = folder / "requirements.txt"
    resolved.write_text(resolve(uv, folder, resolution), encoding="utf-8")
    install = [uv, "pip", "install", "--quiet", "--python", str(folder / "bin" / "python")]
    run([*install, "-r", str(resolved)])
    run([*install, "--no-deps", *(word for path in DISTRIBUTIONS for word in ("-e", path))])
    for name, version in direct_versions(resolved):
        print(f"{name}=={version}")


def resolve(uv: str, folder: Path, resolution: str) -> str:
    """Return the third-party requirements that the resolution chooses, one `name==version` a line."""
    tools = folder / "tools.in"
    tools.write_text("\n".join(locked_tools()), encoding="utf-8")
    projects = [f"{path}/pyproject.toml" for path in DISTRIBUTIONS]
    compile_command = [uv, "pip", "compile", "--quiet", "--no-header", "--no-annotate", "--resolution", resolution]
    compiled = run([*compile_command, "--python", str(folder / "bin" / "python"), *projects, str(tools)])
    # Ours are named by their folders and are installed by themselves.
    return "\n".join(line for line in compiled.splitlines() if "==" in line)


def locked_tools() -> list[str]:
    """Return the test tools with their versions of requirements.lock."""
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    return [match[0] for name in TOOLS for match in re.finditer(rf"^{name}==[^\s;\\]+", lock, re.MULTILINE)]


def direct_versions(resolved: Path) -> list[tuple[str, str]]:
    """Return the chosen versions of what the distributions name themselves."""
    texts = [(ROOT / path / "pyproject.toml").read_text(encoding="utf-8") for path in DISTRIBUTIONS]
    named = {match[1] for text in texts for match in re.finditer(r'^    "([a-z0-9-]+)(?:\[[a-z]+\])?>=', text, re.MULTILINE)}
    chosen = [line.split(" ")[0].split(";")[0].split("==") for line in resolved.read_text(encoding="utf-8").splitlines()]
    return [(name, version) for name, version in ((each[0].partition("[")[0], each[1]) for each in chosen) if name in named]


def run(command: Sequence[str]) -> str:
    """Run a command in the repository; its failure ends the script with its own words."""
    done = subprocess.run(command, cwd=ROOT, check=False, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"check_bounds: {Path(command[0]).name} {command[1]} failed with exit code {done.returncode}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
