#!/usr/bin/env bash
# Builds a Kubernetes control plane and KWOK, the simulator of nodes, from Go modules into .tools/control-plane: versions and hashes are those
# of go.mod and go.sum beside this script. Takes about five minutes on two cores, once. KUBEBUILDER_ASSETS names a folder with programs that
# are there already, as envtest has them; etcd comes from there, from PATH or from Debian. Prints the folder with all five programs.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=${1:-$PWD/.tools/control-plane}
modules=$PWD/scripts/control_plane
version() { sed -nE "s|^[[:space:]]*(require )?$2 v([0-9.]+)( .*)?\$|\2|p" "$modules/$1/go.mod"; }
kubernetes=$(version kubernetes k8s.io/kubernetes) kwok=$(version kwok sigs.k8s.io/kwok)
mkdir -p "$folder"

given() { # PROGRAM: takes the program from KUBEBUILDER_ASSETS
  [ -n "${KUBEBUILDER_ASSETS:-}" ] && [ -x "$KUBEBUILDER_ASSETS/$1" ] && ln -sf "$KUBEBUILDER_ASSETS/$1" "$folder/$1"
}

build() { # MODULE VERSION PACKAGE FLAGS: builds one program unless this version of it is there
  local program=${3##*/}
  given "$program" && return
  [ -x "$folder/$program" ] && [ "$(cat "$folder/.$program" 2>/dev/null)" = "$2" ] && return
  command -v go >/dev/null || { echo "Building $program $2 needs Go: install it, or name a folder with the program in KUBEBUILDER_ASSETS" >&2; exit 1; }
  echo "building $program $2" >&2
  rm -f "$folder/$program"
  (cd "$modules/$1" && CGO_ENABLED=0 go build -mod=readonly -trimpath -buildvcs=false -ldflags "-s -w $4" -o "$folder/$program" "$3")
  echo "$2" > "$folder/.$program"
}

stamp=k8s.io/component-base/version
IFS=. read -r major minor _ <<< "$kubernetes"
flags="-X $stamp.gitVersion=v$kubernetes -X $stamp.gitMajor=$major -X $stamp.gitMinor=$minor"
for program in kube-apiserver kube-controller-manager kube-scheduler; do
  build kubernetes "$kubernetes" "k8s.io/kubernetes/cmd/$program" "$flags"
done
build kwok "$kwok" sigs.k8s.io/kwok/cmd/kwok "-X sigs.k8s.io/kwok/pkg/consts.Version=v$kwok"

if [ ! -f "$folder/stages.yaml" ] || ! grep -qxF "# KWOK $kwok" "$folder/stages.yaml"; then
  source=$(cd "$modules/kwok" && go mod download sigs.k8s.io/kwok && go list -m -f '{{.Dir}}' sigs.k8s.io/kwok)
  { echo "# KWOK $kwok"; for stage in "$source"/kustomize/stage/{pod/fast,node/fast,node/heartbeat}/*.yaml; do
    [ "$(basename "$stage")" = kustomization.yaml ] || { echo "---"; cat "$stage"; }; done; } > "$folder/stages.yaml"
fi

if ! given etcd; then
  command -v etcd >/dev/null || { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends etcd-server >/dev/null; }
  ln -sf "$(command -v etcd)" "$folder/etcd"
fi
echo "$folder"
