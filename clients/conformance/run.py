"""Play the scenario through a runner: `python run.py HOST:PORT RUNNER [ARGUMENT]...`; see README.md."""

import json
import subprocess
import sys
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from string import Template
from typing import IO, Any

SCENARIO = Path(__file__).parent / "scenario.json"

Step = dict[str, Any]  # JSON, as README.md describes it
Outcome = dict[str, Any]


def main(arguments: Sequence[str]) -> int:
    """Play every step, say of each what came of it, and return the exit code."""
    target, *command = arguments
    kept = {"unique": uuid.uuid4().hex}
    with subprocess.Popen([*command, target], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as runner:
        assert runner.stdin is not None
        assert runner.stdout is not None
        for template in json.loads(SCENARIO.read_text(encoding="utf-8")):
            # What earlier steps kept is filled in wherever `$name` stands.
            step = json.loads(Template(json.dumps(template)).substitute(kept))
            outcome = asked(step, runner.stdin, runner.stdout)
            faults = list(faults_of(step["expect"], outcome))
            print("FAIL" if faults else "ok  ", step["step"], flush=True)
            if faults:
                print(*faults, sep="\n")
                runner.kill()
                return 1
            kept |= {name: at(outcome["messages"][0], path) for name, path in step.get("keep", {}).items()}
    return runner.returncode


def asked(step: Step, orders: IO[str], outcomes: IO[str]) -> Outcome:
    """Have the runner make a step's call; return what it says of it."""
    order = {name: step[name] for name in ("rpc", "request", "cut_after", "api_key") if name in step}
    orders.write(json.dumps(order) + "\n")
    orders.flush()
    outcome: Outcome = json.loads(outcomes.readline() or '{"code": "the runner ended", "messages": []}')
    # Heartbeats come when it is quiet, and are in no log.
    outcome["messages"] = [each for each in outcome["messages"] if "heartbeat" not in each.get("event", {})]
    return outcome


def faults_of(expected: Step, outcome: Outcome) -> Iterator[str]:
    """Say all that is not as the step expects it."""
    messages = outcome["messages"]
    facts = {"code": outcome["code"], "reason": outcome.get("reason", ""), "count": len(messages)}
    facts |= {"first": messages[0], "last": messages[-1]} if messages else {}
    for name, wanted in {"reason": "", **expected}.items():
        if name == "seqs_after":
            seqs = [int(at(message, "event.seq") or 0) for message in messages]
            if seqs != list(range(wanted + 1, wanted + 1 + len(seqs))):
                yield f"the seqs after {wanted} are {seqs}"
        elif not fits(facts.get(name), wanted):
            yield f"{name} is {json.dumps(facts.get(name))}, not {json.dumps(wanted)}"


def fits(found: object, wanted: object) -> bool:
    """Tell whether `found` is `wanted`; of an object only the fields that `wanted` has are looked at."""
    if isinstance(wanted, dict):
        return isinstance(found, dict) and all(name in found and fits(found[name], wanted[name]) for name in wanted)
    if isinstance(wanted, list):
        return isinstance(found, list) and len(found) == len(wanted) and all(map(fits, found, wanted))
    return found == wanted


def at(message: Step, path: str) -> str:
    """Return the text at a path of field names, `run.runId`; empty where there is none."""
    found: object = message
    for name in path.split("."):
        found = found.get(name) if isinstance(found, dict) else None
    return str(found or "")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
