"""Virtual environments of the systems that Parley is compared with, one each, made when they are first asked for.

They hold the newest versions of that day; remove the folder to renew them.
"""

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

# Ignored by git, and by the tools that read the code.
CACHE = Path(__file__).resolve().parents[2] / ".venv-bench"
_VERSIONS = "import json, sys, importlib.metadata as m; print(json.dumps({n: m.version(n) for n in sys.argv[1:]}))"


class NotInstalledError(Exception):
    """An environment could not be made."""


@dataclass(frozen=True)
class Environment:
    """One of them: its name and what is asked to be installed into it."""

    name: str
    requirements: tuple[str, ...]

    @property
    def python(self) -> str:
        """Its interpreter."""
        return self.program("python")

    def program(self, name: str) -> str:
        """Return the path of one of its programs."""
        return str(self._folder / "bin" / name)

    def ensure(self) -> None:
        """Make it where it is missing or holds something else. Raises NotInstalledError."""
        stamp = self._folder / "requirements.json"
        wanted = json.dumps([*self.requirements, sys.version])
        if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
            return
        print(f"making {CACHE.name}/{self.name} with {', '.join(self.requirements)}", file=sys.stderr)
        shutil.rmtree(self._folder, ignore_errors=True)
        CACHE.mkdir(exist_ok=True)
        for command in self._commands():
            made = subprocess.run(command, check=False, capture_output=True, text=True)
            if made.returncode:
                raise NotInstalledError((made.stderr.strip() or made.stdout.strip()).splitlines()[-1])
        stamp.write_text(wanted, encoding="utf-8")

    def versions(self) -> dict[str, str]:
        """Return the version of everything that was asked for, by its name."""
        names = [requirement.partition("[")[0] for requirement in self.requirements]
        told = subprocess.run([self.python, "-c", _VERSIONS, *names], check=True, capture_output=True)
        versions: dict[str, str] = json.loads(told.stdout)
        return versions

    @property
    def _folder(self) -> Path:
        return CACHE / self.name

    def _commands(self) -> list[list[str]]:
        uv = shutil.which("uv")
        if uv is None:
            install = [self.python, "-m", "pip", "install", "--quiet", *self.requirements]
            return [[sys.executable, "-m", "venv", str(self._folder)], install]
        make = [uv, "venv", "--quiet", "--python", sys.executable, str(self._folder)]
        return [make, [uv, "pip", "install", "--quiet", "--python", self.python, *self.requirements]]
