"""Persistent volumes for the tests: each claim becomes a folder. Stands for the storage driver of a cluster."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx
from cluster.kubernetes_api import KubernetesApi, Object

_PROVISIONER = "assay.test/folders"
_STORAGE_CLASSES = "/apis/storage.k8s.io/v1/storageclasses"
_VOLUMES = "/api/v1/persistentvolumes"
_PAUSE_S = 0.3


class FolderVolumes:
    """Makes and removes volumes in a thread of its own while it is open; any access mode is fine, as all is on one machine."""

    def __init__(self, api: KubernetesApi, folder: Path) -> None:
        self._api = api
        self._folder = folder
        self._classes: set[str] = set()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._work, name="folder-volumes", daemon=True)

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        self.add_class("standard", default=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._end.set()
        self._thread.join()

    def add_class(self, name: str, *, default: bool = False) -> None:
        """Adds a storage class, unless it is there."""
        if name in self._classes:
            return
        annotations = {"storageclass.kubernetes.io/is-default-class": "true"} if default else {}
        meta = {"name": name, "annotations": annotations}
        self._api.create(_STORAGE_CLASSES, {"metadata": meta, "provisioner": _PROVISIONER, "reclaimPolicy": "Retain"})
        self._classes.add(name)

    def folder_of(self, namespace: str, claim: str) -> Path:
        """Where the content of a claim lies."""
        return self._folder / namespace / claim

    def _work(self) -> None:
        while not self._end.wait(_PAUSE_S):
            try:
                self._once()
            except httpx.HTTPStatusError as error:
                if error.response.status_code not in (404, 409):  # a claim that has just gone, or a volume that has just come
                    raise

    def _once(self) -> None:
        for claim in self._api.list("/api/v1/persistentvolumeclaims"):
            if claim["spec"].get("storageClassName") in self._classes and not claim["spec"].get("volumeName"):
                self._provide(claim)
        for volume in self._api.list(_VOLUMES):
            if volume["status"].get("phase") == "Released":
                shutil.rmtree(volume["spec"]["hostPath"]["path"], ignore_errors=True)
                self._api.delete(f"{_VOLUMES}/{volume['metadata']['name']}")

    def _provide(self, claim: Object) -> None:
        meta, spec = claim["metadata"], claim["spec"]
        name = f"folder-{meta['uid']}"
        if self._api.find(f"{_VOLUMES}/{name}") is not None:
            return  # not bound yet
        folder = self.folder_of(meta["namespace"], meta["name"])
        folder.mkdir(parents=True, exist_ok=True)
        owner = {key: meta[key] for key in ("namespace", "name", "uid")}
        self._api.create(
            _VOLUMES,
            {
                "apiVersion": "v1",
                "kind": "PersistentVolume",
                "metadata": {"name": name},
                "spec": {
                    "capacity": spec["resources"]["requests"],
                    "accessModes": spec["accessModes"],
                    "storageClassName": spec["storageClassName"],
                    "persistentVolumeReclaimPolicy": "Retain",
                    "hostPath": {"path": str(folder)},
                    "claimRef": {"apiVersion": "v1", "kind": "PersistentVolumeClaim", **owner},
                },
            },
        )
