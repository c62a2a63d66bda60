#!/usr/bin/env bash
# Asks a Cumulet of its own, and real Nova beside it, the whole corpus of requests; prints what differs.
#
#   scripts/conformance.sh [--oracle URL] [--cases PATTERN]
#
# --oracle: a running real Nova with three hosts that answers as `tests/conformance/target.py` expects. Without it the
# answers recorded from real Nova are its side.
set -euo pipefail
cd "$(dirname "$0")/.."

folder=$(mktemp -d)
.venv/bin/cumulet up --state "$folder/state" --listen 127.0.0.1:0 --driver simulated --hosts 3 \
    --ready-file "$folder/ready" >"$folder/log" 2>&1 &
cloud=$!
trap 'kill $cloud 2>/dev/null; wait $cloud || true; rm -rf "$folder"' EXIT

for _ in $(seq 300); do
    [ -e "$folder/ready" ] && break
    kill -0 $cloud 2>/dev/null || { cat "$folder/log" >&2; exit 1; }
    sleep 0.1
done
.venv/bin/python -m tests.conformance.live --clouds-file "$folder/state/clouds.yaml" "$@"
