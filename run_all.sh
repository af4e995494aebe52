#!/usr/bin/env bash
# One command from a fresh clone to tables, figures and attention maps; see --help.
set -euo pipefail

usage() {
    cat <<'TEXT'
Usage: ./run_all.sh [PROFILE] [NOTEBOOK ...] [--force] [-p NAME VALUE]
       ./run_all.sh test [pytest arguments]
       ./run_all.sh --help

Sets up what the study needs and executes its notebooks. Finished runs are reused.

  PROFILE     smoke   every notebook in miniature, a minute or two
              quick   the study on a laptop, minutes a notebook (default)
              overnight  published densities and more seeds, a night of two cores
              paper   the published settings; asks for a GPU and days
  NOTEBOOK    name or number, such as 01_o2i_datasize or 01; all if none is named
  --force     also run notebooks that are up to date
  -p          override a parameter of the notebooks named

An active conda or virtual environment that has all packages is used as it is. Otherwise
.venv is made here from environment.yml; this needs Python 3.11 or later.

Results:      outputs/PROFILE/index.html    ($IPSLIB_OUTPUTS moves outputs/)
Digits:       data/                         ($IPSLIB_DATA names another folder)
TEXT
}

fail() {
    echo "run_all.sh: $1" >&2
    exit "${2:-1}"
}

# True if this Python is new enough and has every package of pyproject.toml within its range.
has_everything() {
    "$1" - <<'PY' 2>/dev/null
import sys, tomllib
from importlib.metadata import version
from packaging.requirements import Requirement

project = tomllib.load(open("pyproject.toml", "rb"))["project"]
extras = project["optional-dependencies"]
wanted = project["dependencies"] + extras["study"] + extras["slides"] + extras["test"]
for requirement in map(Requirement, wanted):
    if requirement.name == project["name"]:  # an extra that holds another
        continue
    if not requirement.specifier.contains(version(requirement.name), prereleases=True):
        sys.exit(1)
PY
}

# The first Python >= 3.11 that runs; a pyenv shim may exist and fail.
find_python() {
    local name
    for name in python3 python3.14 python3.13 python3.12 python3.11 python; do
        if "$name" -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$name"
            return
        fi
    done
    fail "no Python 3.11 or later was found: install one from your system's packages, conda or python.org"
}

# Fills .venv. The stamp is written last; the marker tells an interrupted installation.
install() {
    local stamp="$1" python marker=.venv/ipslib-installing
    python="$(find_python)"
    echo "Setting up .venv with $("$python" --version). On Linux PyTorch and its CUDA libraries take" >&2
    echo "about 6 GB of disk: expect 5 to 15 minutes on a good line. This is done once." >&2
    if [[ -e $marker ]] || ! .venv/bin/python -c '' 2>/dev/null; then
        "$python" -m venv --clear .venv || {
            rm -rf .venv
            fail "$python could not make .venv: install its venv package (on Debian and Ubuntu: python3-venv)"
        }
    fi
    touch "$marker"
    awk '/- pip:/ { pins = 1; next } pins && $2 ~ /==/ { print $2 }' environment.yml \
        >.venv/ipslib-pins.txt
    echo "[1/2] installing the packages pinned in environment.yml" >&2
    .venv/bin/python -m pip install --disable-pip-version-check -r .venv/ipslib-pins.txt >&2 ||
        fail "the installation stopped, see pip's message above; the same command tries again"
    echo "[2/2] installing ipslib itself" >&2
    .venv/bin/python -m pip install --disable-pip-version-check --quiet --no-deps -e . >&2 ||
        fail "ipslib itself could not be installed, see pip's message above"
    .venv/bin/python -m ipslib notebooks >&2
    echo "$stamp" >.venv/ipslib-stamp
    rm -f "$marker"
}

# Sets $python to the environment's Python, made first if need be.
set_up() {
    local active="${VIRTUAL_ENV:-${CONDA_PREFIX:-}}" stamp
    if [[ -n $active ]]; then
        python="$active/bin/python"
        if has_everything "$python"; then return; fi
        echo "The active environment lacks packages of pyproject.toml: using .venv instead." >&2
    fi
    stamp="$(cat environment.yml pyproject.toml | cksum)"
    if [[ $(cat .venv/ipslib-stamp 2>/dev/null) != "$stamp" ]] ||
        ! .venv/bin/python -c '' 2>/dev/null; then
        install "$stamp"
    fi
    python=.venv/bin/python
}

first="${1:-quick}"
case "$first" in
-h | --help) usage && exit ;;
smoke | quick | overnight | paper | test) shift $(($# > 0)) ;;
-*) first=quick ;;
*) fail "there is no profile '$first'; choose smoke, quick, overnight, paper or test" 2 ;;
esac

# Folders named relative to the caller's place are meant there.
for variable in IPSLIB_OUTPUTS IPSLIB_DATA; do
    value="${!variable:-}"
    if [[ -n $value && $value != [/~]* ]]; then
        export "$variable=$PWD/$value"
    fi
done
cd "$(dirname "${BASH_SOURCE[0]}")"

set_up
if [[ $first == test ]]; then
    exec "$python" -m pytest --numprocesses auto --dist worksteal "$@"
fi
exec "$python" -m ipslib study "$first" "$@"
