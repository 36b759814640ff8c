#!/bin/sh
# Lint, format and compatibility of the protos, with the buf that package.json pins.
#
#   scripts/check_protos.sh             check; says why and passes where there is no node
#   scripts/check_protos.sh --baseline  check lint and format, then make today's contract the baseline
#
# The contract must stay compatible with the last release tag and, before the first, with protos/baseline.binpb.
set -eu
cd "$(dirname "$0")/.."

baseline=protos/baseline.binpb
buf=node_modules/.bin/buf

if ! command -v node >/dev/null 2>&1 || ! command -v npm >/dev/null 2>&1; then
    echo "check_protos: skipped, buf needs node and npm"
    exit 0
fi
if [ -n "${CI:-}" ]; then
    npm ci --no-audit --no-fund --loglevel=error
elif [ ! -x "$buf" ]; then
    echo "check_protos: skipped, buf is not installed (npm ci installs it)"
    exit 0
fi

"$buf" lint
"$buf" format --diff --exit-code

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

if [ "${1:-}" = "--baseline" ]; then
    "$buf" build --path protos/parley --exclude-source-info --output "$baseline"
    echo "check_protos: $baseline is today's contract"
    exit 0
fi

# buf compares module by module and an image counts as one module, so both sides are images of our own files.
against=$baseline
tag=$(git describe --tags --abbrev=0 --match 'v[0-9]*' 2>/dev/null || true)
if [ -n "$tag" ]; then
    against=$folder/release.binpb
    "$buf" build ".git#tag=$tag" --path protos/parley --output "$against"
fi
"$buf" build --path protos/parley --output "$folder/current.binpb"
"$buf" breaking "$folder/current.binpb" --against "$against" \
    --config '{"version": "v2", "breaking": {"use": ["FILE"]}}'
