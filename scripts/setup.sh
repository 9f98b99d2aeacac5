#!/usr/bin/env bash
# Makes the environment: uv by its pinned hash, then every pinned package, then the project's own distributions.
set -euo pipefail
python=$1 venv=$2
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Assay needs Python 3.11 or newer; set PYTHON=python3.11" >&2; exit 1; }
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
pinned_uv=$(mktemp)
trap 'rm -f "$pinned_uv"' EXIT
awk '/^uv==/ {on=1; print; next} on && /^ +--hash/ {print; next} {on=0}' requirements.txt > "$pinned_uv"
"$venv/bin/uv" --version 2>/dev/null | grep -qF "$(sed -n 's/^uv==\([^ ]*\).*/\1/p' "$pinned_uv")" \
  || "$venv/bin/python" -m pip install --quiet --require-hashes -r "$pinned_uv"
export VIRTUAL_ENV=$venv
"$venv/bin/uv" pip install --quiet --require-hashes -r requirements.txt
"$venv/bin/uv" pip install --quiet --no-deps --no-build-isolation $(printf -- '-e %s ' libs/* services/*)
# Compiles, once and in one process, what every service would else compile at its first start.
"$venv/bin/python" -c 'import assay_cleaning.__main__, assay_reward.app, assay_policy.__main__, assay_training.preloaded, assay_evaluation.__main__'
