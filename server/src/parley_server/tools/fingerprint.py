"""Tells whether two calls are the same call, and gives a call its key."""

import hashlib
import json

from parley_server.tools.tool import JsonObject


def fingerprint(name: str, arguments: JsonObject) -> str:
    """Return the SHA-256, in hex, of a tool's name and its arguments in canonical JSON (sorted keys)."""
    canonical = json.dumps(arguments, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(f"{name}\n{canonical}".encode()).hexdigest()


def idempotency_key(run_id: str, call_id: str, call_fingerprint: str) -> str:
    """Return the key of one call: the same when that call is repeated after a crash, another for any other call."""
    return hashlib.sha256(f"{run_id}|{call_id}|{call_fingerprint}".encode()).hexdigest()
