#!/usr/bin/env bash
# Runs Tempest's suites against a Cumulet of its own with simulated hosts, and says which tests failed and why.
#
#   scripts/tempest.sh RUNNER SUITE...
#
# RUNNER: the script that sets Tempest up and runs named suites of it (`--clouds`, `--cloud`, `--suite`, `--json`).
# Results go to .build/tempest/SUITE.json, where `make suites-page` finds them.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ $# -lt 2 ] || [ ! -e "$1" ]; then
    echo "make tempest TEMPEST_RUN=path/of/the/runner [SUITE='compute-admin compute-api']" >&2
    exit 2
fi
runner=$1
shift
folder=$(mktemp -d)
cloud=
trap '[ -z "$cloud" ] || { kill $cloud 2>/dev/null; wait $cloud || true; }; rm -rf "$folder"' EXIT

failed=0
mkdir -p .build/tempest
for suite in "$@"; do
    .venv/bin/cumulet up --state "$folder/$suite" --listen 127.0.0.1:0 --driver simulated \
        --ready-file "$folder/$suite.ready" >"$folder/$suite.log" 2>&1 &
    cloud=$!
    for _ in $(seq 300); do
        [ -e "$folder/$suite.ready" ] && break
        kill -0 $cloud 2>/dev/null || { cat "$folder/$suite.log" >&2; exit 1; }
        sleep 0.1
    done
    started=$runner at_once=2
    case $suite in
        openstackclient) started=scripts/client_suites.py ;;
        openstacksdk) started=scripts/client_suites.py at_once=1 ;; # One test makes networks, the next one wants the only one.
    esac
    RUNNER=$runner python3 "$started" --clouds "$folder/$suite/clouds.yaml" --cloud cumulet --suite "$suite" --concurrency $at_once \
        --json ".build/tempest/$suite.json" || failed=1
    git describe --always --dirty=+ >".build/tempest/$suite.commit"
    kill $cloud
    wait $cloud || true
    cloud=
done
exit $failed
