#!/usr/bin/env bash
# Makes .build/suites-venv: this program as in .venv, and beside it the packages named, which bring a suite.
#
#   scripts/suites_venv.sh PACKAGE==VERSION...
set -euo pipefail
cd "$(dirname "$0")/.."
uv=uv
! .build/uv/bin/uv --version >/dev/null 2>&1 || uv=.build/uv/bin/uv
if [ -z "${SSL_CERT_FILE:-}" ] && [ -s /etc/ssl/certs/ca-certificates.crt ]; then
    export SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
fi
UV_PROJECT_ENVIRONMENT=.build/suites-venv "$uv" sync --frozen --inexact --quiet
"$uv" pip install --quiet --python .build/suites-venv/bin/python "$@"
