#!/usr/bin/env bash
# Prepares this clone: `.venv` from uv.lock (with uv from PyPI where there is none), and, when asked, Debian packages.
#
#   scripts/setup.sh             the Python environment only
#   scripts/setup.sh qemu        also what real guests need (QEMU; what the tiny image is built with)
#   scripts/setup.sh qemu test   also what the test suite starts (PostgreSQL, NATS)
#
# Needs Python >= 3.11 and nothing else. Packages are installed only as root, only with apt, and named first; without
# them the cloud runs on simulated hosts.
set -euo pipefail
cd "$(dirname "$0")/.."
readonly UV_VERSION=0.13.9
readonly UV_PLACE="$PWD/.build/uv"

say() { printf 'setup: %s\n' "$*"; }
fail() { printf 'setup: %s\n' "$*" >&2; exit 1; }

have_apt() { command -v apt-get >/dev/null 2>&1; }
is_root() { [ "$(id -u)" = 0 ]; }

apt_lists() {
    if ! ls /var/lib/apt/lists/*_Packages* >/dev/null 2>&1; then
        say "apt-get update (apt has no package lists yet)"
        apt-get update -qq
    fi
}

apt_install() { # why, packages...
    local why=$1
    shift
    say "installing the Debian packages $* ($why)"
    apt_lists
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >.build/apt.log 2>&1 || {
        # Lists that are older than the mirror name packages that are gone: refresh them once.
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >.build/apt.log 2>&1
    } || { tail -n 20 .build/apt.log >&2; return 1; }
}

# The system's own first: it gets the system's security updates, and Debian's is built with profile-guided optimization
# (pyenv's takes half as much again for the same work).
find_python() {
    local candidate
    for candidate in ${PYTHON:-} /usr/bin/python3 python3 python3.14 python3.13 python3.12 python3.11; do
        if "$candidate" -c 'import sqlite3, ssl, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            "$candidate" -c 'import sys; print(sys.executable)'
            return
        fi
    done
    fail "no Python >= 3.11 found; set PYTHON to one"
}

# uv: the user's own, else one of ours in .build/uv. Debian forbids pip to change the system's packages, so it goes into
# a virtual environment, or, where Debian's python3-venv is missing, into a folder of its own.
find_uv() { # python
    if uv --version >/dev/null 2>&1; then
        UV=(uv)
        return
    fi
    if "$UV_PLACE/bin/uv" --version >/dev/null 2>&1; then
        UV=("$UV_PLACE/bin/uv")
        return
    fi
    say "getting uv from PyPI into .build/uv"
    rm -rf "$UV_PLACE"
    if ! "$1" -c 'import ensurepip, venv' 2>/dev/null; then
        if "$1" -m pip --version >/dev/null 2>&1; then
            "$1" -m pip install --quiet --target "$UV_PLACE" "uv==$UV_VERSION"
            UV=("$UV_PLACE/bin/uv")
            return
        fi
        if is_root && have_apt; then
            apt_install "this Python cannot make virtual environments" python3-venv
        else
            fail "this Python has neither venv nor pip: install Debian's python3-venv, or uv, and run this again"
        fi
    fi
    "$1" -m venv "$UV_PLACE"
    "$UV_PLACE/bin/python" -m pip install --quiet --disable-pip-version-check "uv==$UV_VERSION"
    UV=("$UV_PLACE/bin/uv")
}

python_environment() {
    local python
    python=$(find_python)
    # uv brings its own list of authorities; a site's proxy is known only to the system's.
    if [ -z "${SSL_CERT_FILE:-}" ] && [ -s /etc/ssl/certs/ca-certificates.crt ]; then
        export SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
    fi
    local wanted
    wanted="$python $(cat uv.lock pyproject.toml | sha256sum)"
    if [ "$(cat .build/environment 2>/dev/null)" != "$wanted" ] || ! .venv/bin/python -c 'import cumulet' 2>/dev/null; then
        find_uv "$python"
        say ".venv from uv.lock"
        # Compiled now: where PYTHONDONTWRITEBYTECODE is set, every start would compile everything anew.
        UV_PYTHON_DOWNLOADS=never "${UV[@]}" sync --frozen --quiet --compile-bytecode --python "$python"
        printf '%s' "$wanted" >.build/environment
    fi
    .venv/bin/python -m compileall -q src
}

debian_packages() { # qemu | test
    local missing=() package
    for package in $(.venv/bin/python scripts/debian_packages.py "$1"); do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    local why
    case $1 in
        qemu) why="real guests: the hypervisor and what the tiny image is built with" ;;
        test) why="the tests run on PostgreSQL as well, start NATS for agents on other machines, and ping guests" ;;
    esac
    apt_install "$why" "${missing[@]}" || say "could not install ${missing[*]}: going on without"
}

system_packages() { # qemu | test
    if is_root && have_apt; then
        debian_packages "$1"
    elif [ "$1" = qemu ] && ! command -v qemu-system-x86_64 >/dev/null 2>&1; then
        say "no QEMU here, and not root on a machine with apt: hosts will be simulated." \
            "For real guests install: $(.venv/bin/python scripts/debian_packages.py qemu | tr '\n' ' ')"
    elif [ "$1" = test ] && ! .venv/bin/python scripts/debian_packages.py --has-postgres; then
        say "no PostgreSQL here, and not root on a machine with apt: its tests will be shown as skipped"
    fi
}

# Built once into the user's cache: the first cloud need not wait for a kernel to be downloaded.
tiny_image() {
    command -v qemu-img >/dev/null 2>&1 || return 0
    if is_root && have_apt; then apt_lists; fi
    .venv/bin/python scripts/tiny_image.py
}

mkdir -p .build
python_environment
for part in "$@"; do
    system_packages "$part"
    if [ "$part" = qemu ]; then tiny_image; fi
done
