"""Generate the Python of the contract from `protos/`, or prove that what is committed is what would be generated.

`python scripts/generate.py` writes `protos/gen/python`; `python scripts/generate.py --check` writes nothing, lists the
files that differ and ends with 1 when there are any.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"
OUTPUT = PROTOS / "gen" / "python"
INCLUDES = (PROTOS, PROTOS / "third_party" / "googleapis", PROTOS / "third_party" / "protovalidate")
REQUIREMENTS = ROOT / "scripts" / "generate-requirements.txt"
VENV = ROOT / ".venv-generate"
VENV_BIN = VENV / ("Scripts" if os.name == "nt" else "bin")
VENV_PYTHON = VENV_BIN / "python"
VENV_STAMP = VENV / "requirements.sha256"

PACKAGES = ("parley", "buf")
# protoc makes no packages. `parley` is ours alone and a regular package; `buf` is a namespace that others may share.
PACKAGE_FILES = ("parley/__init__.py", "parley/py.typed", "parley/v1/__init__.py", "buf/validate/py.typed")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing, compare with what is committed")
    options = parser.parse_args(arguments)
    ensure_venv()
    with tempfile.TemporaryDirectory(prefix="generate-") as folder:
        fresh = Path(folder)
        generate(fresh)
        if options.check:
            return report(differences(fresh, OUTPUT))
        replace(fresh, OUTPUT)
    return 0


def ensure_venv() -> None:
    """Make the generator's own virtual environment, unless it is there with the pinned versions."""
    wanted = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()
    if VENV_STAMP.is_file() and VENV_STAMP.read_text() == wanted:
        return
    if VENV.exists():
        shutil.rmtree(VENV)
    uv = shutil.which("uv")
    if uv is not None:
        run([uv, "venv", "--quiet", "--python", sys.executable, str(VENV)])
        run([uv, "pip", "install", "--quiet", "--python", str(VENV_PYTHON), "-r", str(REQUIREMENTS)])
    else:
        run([sys.executable, "-m", "venv", str(VENV)])
        run([str(VENV_PYTHON), "-m", "pip", "install", "--quiet", "-r", str(REQUIREMENTS)])
    VENV_STAMP.write_text(wanted)


def generate(folder: Path) -> None:
    """Write everything that is generated into an empty folder."""
    ours = sorted(path.relative_to(PROTOS).as_posix() for path in (PROTOS / "parley").rglob("*.proto"))
    messages = [*ours, "buf/validate/validate.proto"]
    protoc(["python_out", "mypy_out"], folder, messages)
    protoc(["grpc_python_out", "mypy_grpc_out"], folder, [name for name in ours if name.endswith("_service.proto")])
    for name in PACKAGE_FILES:
        (folder / name).touch()


def protoc(plugins: Sequence[str], folder: Path, names: Sequence[str]) -> None:
    """Run the pinned protoc over files named by their path below an include folder."""
    # mypy-protobuf's plugins are found on PATH; `quiet` keeps them from naming every file they write.
    outputs = [f"--{plugin}={'quiet:' if plugin.startswith('mypy') else ''}{folder}" for plugin in plugins]
    includes = [f"-I{path}" for path in INCLUDES]
    path = os.pathsep.join([str(VENV_BIN), os.environ.get("PATH", "")])
    command = [str(VENV_PYTHON), "-m", "grpc_tools.protoc", *includes, *outputs, *names]
    run(command, environment={**os.environ, "PATH": path})


def run(command: Sequence[str], environment: dict[str, str] | None = None) -> None:
    """Run a command from the repository's root; its failure ends the script with its own words."""
    try:
        subprocess.run(command, cwd=ROOT, env=environment, check=True)
    except subprocess.CalledProcessError as error:
        sys.exit(f"generate: {Path(command[0]).name} failed with exit code {error.returncode}")


def generated_files(folder: Path) -> set[str]:
    """The paths of the generated files below a folder, as they are committed."""
    files = (path for package in PACKAGES for path in (folder / package).rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix() for path in files if path.suffix != ".pyc"}


def differences(fresh: Path, committed: Path) -> list[str]:
    """The paths that are missing on one side or hold other bytes, sorted."""
    names = generated_files(fresh) | generated_files(committed)
    return sorted(name for name in names if contents(fresh / name) != contents(committed / name))


def contents(path: Path) -> bytes | None:
    """A file's bytes, or None when there is no such file."""
    return path.read_bytes() if path.is_file() else None


def report(differing: Sequence[str]) -> int:
    """Name the differing files and return the exit code."""
    for name in differing:
        print(f"generate: {(OUTPUT / name).relative_to(ROOT)} is not what protos/ gives; run `make generate`")
    return 1 if differing else 0


def replace(fresh: Path, committed: Path) -> None:
    """Bring the committed files to what was generated, touching only those that differ."""
    for name in differences(fresh, committed):
        target = committed / name
        if (fresh / name).is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(fresh / name, target)
        else:
            target.unlink()


if __name__ == "__main__":
    sys.exit(main())
