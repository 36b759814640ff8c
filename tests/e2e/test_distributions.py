"""What is built is what users install: the four wheels, and the folders in place, each in an empty environment."""

import os
import re
import subprocess
import sys
import venv
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
from server_process import ServerProcess

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = {
    "parley_protos": "protos/gen/python",
    "parley_server": "server",
    "parley_client": "clients/python",
    "parley_console": "plugins/console",
}
PACKAGES = {
    "parley_protos": {"parley", "buf"},
    "parley_server": {"parley_server"},
    "parley_client": {"parley_client"},
    "parley_console": {"parley_console"},
}
# What no `import` finds missing.
FILES = {
    "parley_protos": {"parley/py.typed", "parley/v1/agent_service_pb2.pyi", "buf/validate/validate_pb2.py"},
    "parley_server": {
        "parley_server/llm/offline/default_script.yaml",
        "parley_server/storage/sql/migrations/env.py",
        "parley_server/storage/sql/migrations/versions/0001_first_tables.py",
    },
    "parley_client": {"parley_client/py.typed", "parley_client/sync.py"},
    "parley_console": {"parley_console/__main__.py"},
}
# Of venv's own setuptools, where there is one.
KNOWN_PTH = {"distutils-precedence.pth"}
# The schema's keepers; in an environment of its own, for it brings libraries of its own.
VALIDATOR = "cyclonedx-python-lib[json-validation]==11.12.0"
VALIDATE = """
import sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
print(JsonStrictValidator(SchemaVersion.V1_6).validate_str(sys.stdin.read()))
"""
# Installing takes a minute and the package index, so `make check` runs these and `make test` does not.
installs = pytest.mark.distributions


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The four wheels by their distribution's name."""
    folder = tmp_path_factory.mktemp("wheels")
    for source in FOLDERS.values():
        # With the environment's hatchling, which is the locked one.
        build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), source]
        subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    return {path.name.partition("-")[0]: path for path in folder.glob("*.whl")}


class Environment:
    """A virtual environment, and programs that run in it far from the repository."""

    def __init__(self, folder: Path) -> None:
        venv.create(folder / "venv", with_pip=True)
        self.bin = folder / "venv" / "bin"
        self.site_packages = Path(self.run("python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"))
        constraints = folder / "constraints.txt"
        constraints.write_text("\n".join(locked_versions()), encoding="utf-8")
        self._pip = ("-m", "pip", "install", "--quiet", "--constraint", str(constraints))

    def install(self, *arguments: str, cwd: Path | None = None) -> None:
        """Install with pip; the versions are those of requirements.lock, the names those of the metadata."""
        self.run("python", *self._pip, *arguments, cwd=cwd)

    def run(self, program: str, *arguments: str, cwd: Path | None = None, target: str = "") -> str:
        """Run a program and return what it prints. `target` is the server that it shall talk to."""
        done = subprocess.run(
            [self.bin / program, *arguments],
            check=False,
            capture_output=True,
            text=True,
            timeout=300,
            cwd=cwd or self.bin.parent,
            env={**clean_environment(), "PARLEY_TARGET": target},
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


def clean_environment() -> dict[str, str]:
    dropped = ("OPENAI_", "PARLEY_", "PYTHON", "VIRTUAL_ENV")
    return {name: value for name, value in os.environ.items() if not name.startswith(dropped)}


def locked_versions() -> list[str]:
    """Return the lock's versions without its hashes, which pip does not take beside wheels of our own."""
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    return re.findall(r"^[^\s#=]+==[^\\\n]+", lock, flags=re.MULTILINE)


def check_it_works(environment: Environment, data_dir: Path) -> None:
    """Start the installed server and ask it with the installed console."""
    server = ServerProcess(data_dir, program=[str(environment.bin / "parley-server")])
    server.start()
    try:
        answer = environment.run("parley", "ask", "What is 17 * 23?", target=server.address)
        assert answer == "17 * 23 = 391"
        assert server.stop() == 0
    finally:
        if server.is_running:
            server.kill()


def python_paths(environment: Environment, *modules: str) -> list[Path]:
    """Return where an installed program looks for modules, and where it found these."""
    files = ", ".join(f"{module}.__file__" for module in modules)
    program = f"import sys, {', '.join(modules)}; print(*sys.path, {files}, sep='\\n')"
    return [Path(line) for line in environment.run("python", "-I", "-c", program).splitlines() if line]


@pytest.mark.parametrize("name", FOLDERS)
def test_a_wheel_holds_its_packages_and_nothing_else(wheels: dict[str, Path], name: str) -> None:
    names = set(zipfile.ZipFile(wheels[name]).namelist())
    metadata = f"{'-'.join(wheels[name].name.split('-')[:2])}.dist-info"
    assert {path.partition("/")[0] for path in names} == PACKAGES[name] | {metadata}
    assert FILES[name] <= names
    # What ends in .pth is run by every start of Python, whoever starts it.
    assert not [path for path in names if path.endswith((".pyc", ".proto", ".pth"))]


def test_the_distributions_have_one_version_and_name_each_other_by_it(wheels: dict[str, Path]) -> None:
    versions, requirements = set(), []
    for path in wheels.values():
        archive = zipfile.ZipFile(path)
        (text,) = (archive.read(name).decode() for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = Parser().parsestr(text)
        versions.add(metadata["Version"])
        requirements += [line for line in metadata.get_all("Requires-Dist", []) if line.startswith("parley-")]
    (version,) = versions
    assert set(requirements) == {f"parley-protos=={version}", f"parley-client=={version}"}


@installs
@pytest.mark.timeout(600)
def test_the_wheels_serve_and_answer_in_an_empty_environment(wheels: dict[str, Path], tmp_path: Path) -> None:
    environment = Environment(tmp_path)
    environment.install(*(str(path) for path in wheels.values()))
    environment.run("python", "-m", "pip", "check")
    assert {file.name for file in environment.site_packages.glob("*.pth")} <= KNOWN_PTH
    paths = python_paths(environment, "parley", "parley_server", "parley_client", "parley_console")
    assert not [path for path in paths if path.is_relative_to(ROOT)]
    assert sum(path.is_relative_to(environment.site_packages) for path in paths) == 1 + len(FOLDERS)
    check_it_works(environment, tmp_path / "data")


@installs
@pytest.mark.timeout(600)
def test_the_bill_of_materials_is_what_its_schema_says(tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", VALIDATOR], check=True, env=clean_environment())
    written = subprocess.run([sys.executable, "scripts/sbom.py"], cwd=ROOT, check=True, capture_output=True).stdout
    said = subprocess.run([python, "-c", VALIDATE], input=written, check=True, capture_output=True).stdout
    assert said == b"None\n"


@installs
@pytest.mark.timeout(600)
def test_the_folders_install_in_place_by_one_plain_pip_command(tmp_path: Path) -> None:
    environment = Environment(tmp_path)
    environment.install(*(word for folder in FOLDERS.values() for word in ("-e", folder)), cwd=ROOT)
    paths = python_paths(environment, "parley", "parley_server", "parley_client", "parley_console")
    assert sum(path.is_relative_to(ROOT) and path.suffix == ".py" for path in paths) == len(FOLDERS)
    check_it_works(environment, tmp_path / "data")
