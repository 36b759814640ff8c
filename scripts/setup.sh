#!/bin/sh
# Make .venv: the hashed lock first, then our distributions without their dependencies.
# Does nothing when it is up to date. Says what it does on standard error; standard output stays free.
set -eu
cd "$(dirname "$0")/.."

say() { echo "setup: $*" >&2; }

find_python() {
    for candidate in ${PYTHON:-} python3 python3.14 python3.13 python3.12 python3.11 python; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
            echo "$candidate"
            return
        fi
    done
    say "Parley needs Python 3.11 or newer and found none; install one, or name it: make setup PYTHON=/path/to/python"
    exit 1
}

distributions="-e protos/gen/python -e server -e clients/python -e plugins/console"
stamp=.venv/setup.stamp
# `here` too: an environment does not survive being moved.
wanted=$(cat requirements.lock server/pyproject.toml clients/python/pyproject.toml plugins/console/pyproject.toml \
    protos/gen/python/pyproject.toml scripts/setup.sh | cksum; pwd)
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
    exit 0
fi

python=$(find_python)
rm -rf .venv
if command -v uv >/dev/null 2>&1; then
    say "making .venv with uv"
    uv venv --quiet --python "$(command -v "$python")" .venv >&2
    uv pip install --quiet --python .venv/bin/python --require-hashes -r requirements.lock >&2
    # shellcheck disable=SC2086  # a list on purpose
    uv pip install --quiet --python .venv/bin/python --no-deps --no-build-isolation $distributions >&2
else
    say "making .venv with venv and pip (a minute or two)"
    "$python" -m venv .venv >&2 || {
        say "this Python cannot make virtual environments; install its venv package (Debian: python3-venv)"
        exit 1
    }
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock >&2
    # shellcheck disable=SC2086
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation \
        $distributions >&2
fi
printf '%s' "$wanted" > "$stamp"
say "done"
