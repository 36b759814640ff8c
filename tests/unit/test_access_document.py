"""The page about access is what the protos give."""

import subprocess
import sys
from pathlib import Path


def test_the_access_document_is_what_the_protos_say() -> None:
    root = Path(__file__).resolve().parents[2]
    script = [sys.executable, str(root / "scripts" / "document_access.py"), "--check"]
    checked = subprocess.run(script, check=False, capture_output=True, text=True)
    assert (checked.returncode, checked.stdout) == (0, ""), checked.stderr
