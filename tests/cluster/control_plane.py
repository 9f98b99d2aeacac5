"""A real Kubernetes control plane on loopback: etcd, API server, controller manager, scheduler, and KWOK, which plays nodes.

RBAC, service account tokens, Pod Security and all default admission are on as on a cluster. What is not there: kube-proxy, a DNS service
and kubelets; `cluster.pools` and `cluster.node` bring what the tests need of them.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx
from cluster.kubernetes_api import KubernetesApi
from cluster.programs import Program

from assay_cli.ports import free_ports


class ControlPlane:
    """Starts with `with`; all ends with it, and with this process."""

    def __init__(self, programs: Path, folder: Path) -> None:
        """Takes the folder that scripts/control_plane.sh names, and one for its state."""
        self._programs = programs
        self._folder = folder
        self._running: list[Program] = []
        self._token = secrets.token_hex(16)
        self.kubeconfig = folder / "kubeconfig"

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def stop(self) -> None:
        for program in reversed(self._running):
            program.stop()
        self._running.clear()

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self._port}"

    @property
    def ca(self) -> Path:
        return self._folder / "certificates" / "apiserver.crt"

    @property
    def token(self) -> str:
        """Token of a user in system:masters."""
        return self._token

    def api(self, token: str = "") -> KubernetesApi:
        """The API as an administrator sees it, or as the owner of that token does."""
        return KubernetesApi(url=self.url, ca=self.ca, token=token or self._token)

    def _start(self) -> None:
        etcd_port, etcd_peer, self._port, manager_port, scheduler_port, kwok_port = free_ports(6)
        self._start_etcd(etcd_port, etcd_peer)
        self._start_api_server(f"http://127.0.0.1:{etcd_port}")
        self._write_kubeconfig()
        account_key = str(self._folder / "accounts.key")
        self._run(
            "kube-controller-manager",
            f"--kubeconfig={self.kubeconfig}",
            f"--authentication-kubeconfig={self.kubeconfig}",
            f"--authorization-kubeconfig={self.kubeconfig}",
            f"--service-account-private-key-file={account_key}",
            f"--root-ca-file={self.ca}",
            "--use-service-account-credentials",
            "--leader-elect=false",
            "--bind-address=127.0.0.1",
            f"--secure-port={manager_port}",
            f"--cert-dir={self._folder / 'manager'}",
            "--pvclaimbinder-sync-period=1s",
        )
        self._run(
            "kube-scheduler",
            f"--kubeconfig={self.kubeconfig}",
            f"--authentication-kubeconfig={self.kubeconfig}",
            f"--authorization-kubeconfig={self.kubeconfig}",
            "--leader-elect=false",
            "--bind-address=127.0.0.1",
            f"--secure-port={scheduler_port}",
            f"--cert-dir={self._folder / 'scheduler'}",
        )
        self._run(
            "kwok",
            f"--kubeconfig={self.kubeconfig}",
            f"--config={self._programs / 'stages.yaml'}",
            "--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake",
            "--cidr=10.200.0.1/16",
            f"--server-address=127.0.0.1:{kwok_port}",
        )

    def _start_etcd(self, port: int, peer_port: int) -> None:
        url, peer = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{peer_port}"
        etcd = self._run(
            "etcd",
            f"--data-dir={self._folder / 'etcd'}",
            f"--listen-client-urls={url}",
            f"--advertise-client-urls={url}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--unsafe-no-fsync",
        )

        def healthy() -> bool:
            try:
                return httpx.get(f"{url}/health", trust_env=False).status_code == 200
            except httpx.TransportError:
                return False

        etcd.wait_until(healthy)

    def _start_api_server(self, etcd: str) -> None:
        account_key, account_public = self._folder / "accounts.key", self._folder / "accounts.pub"
        subprocess.run(["openssl", "genrsa", "-out", account_key, "2048"], check=True, capture_output=True)
        subprocess.run(["openssl", "rsa", "-in", account_key, "-pubout", "-out", account_public], check=True, capture_output=True)
        tokens = self._folder / "tokens.csv"
        tokens.write_text(f'{self._token},admin,admin,"system:masters"\n')
        server = self._run(
            "kube-apiserver",
            f"--etcd-servers={etcd}",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            f"--secure-port={self._port}",
            f"--cert-dir={self._folder / 'certificates'}",
            f"--token-auth-file={tokens}",
            "--authorization-mode=Node,RBAC",
            f"--service-account-issuer={self.url}",
            f"--service-account-key-file={account_public}",
            f"--service-account-signing-key-file={account_key}",
            "--service-cluster-ip-range=10.96.0.0/16",
            "--endpoint-reconciler-type=none",
            # Debian's etcd cannot tell how far a watch is, so that lists as streams would fail.
            "--feature-gates=WatchList=false",
        )

        def ready() -> bool:
            if not self.ca.exists():
                return False
            api = self.api()
            try:
                return api.ready() and api.find("/api/v1/namespaces/default") is not None
            finally:
                api.close()

        server.wait_until(ready)

    def _write_kubeconfig(self) -> None:
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin"}}],
            "clusters": [{"name": "test", "cluster": {"server": self.url, "certificate-authority": str(self.ca)}}],
            "users": [{"name": "admin", "user": {"token": self._token}}],
        }
        self.kubeconfig.write_text(json.dumps(config))

    def _run(self, name: str, *arguments: str) -> Program:
        quiet = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
        program = Program(name, [str(self._programs / name), *arguments], log=self._folder / f"{name}.log", environment=quiet)
        self._running.append(program)
        return program
