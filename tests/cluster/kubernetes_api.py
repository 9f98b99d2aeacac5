"""The few verbs of the Kubernetes API that the tests need, over plain HTTPS."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

Object = dict[str, Any]


class NotAsExpected(AssertionError):
    """Something did not come about in time; says what was seen last."""


class KubernetesApi:
    """One user's view of an API server. Paths are the API's own, as in `/api/v1/namespaces/default/pods`."""

    def __init__(self, *, url: str, ca: Path, token: str) -> None:
        self.url = url
        self.ca = ca
        self.token = token
        trusted = ssl.create_default_context(cafile=ca)
        signed_in = {"Authorization": f"Bearer {token}"}
        self._http = httpx.Client(base_url=url, verify=trusted, headers=signed_in, timeout=30, trust_env=False)

    def close(self) -> None:
        self._http.close()

    def ready(self) -> bool:
        try:
            return self._http.get("/readyz").status_code == 200
        except httpx.TransportError:
            return False

    def get(self, path: str, **query: str) -> Object:
        return self._answer(self._http.get(path, params=query))

    def find(self, path: str) -> Object | None:
        """The object, or None where there is none."""
        answer = self._http.get(path)
        return None if answer.status_code == 404 else self._answer(answer)

    def list(self, path: str, **query: str) -> list[Object]:
        """The objects there are; `labelSelector` and `fieldSelector` as the API takes them."""
        return list(self.get(path, **query)["items"])

    def groups(self) -> set[str]:
        """API groups that are served."""
        return {group["name"] for group in self.get("/apis")["groups"]}

    def create(self, path: str, body: Object) -> Object:
        return self._answer(self._http.post(path, json=body))

    def delete(self, path: str, **query: str) -> None:
        """Deletes it; that it is gone already is as good."""
        answer = self._http.delete(path, params=query)
        if answer.status_code != 404:
            self._answer(answer)

    def _answer(self, answer: httpx.Response) -> Object:
        if answer.is_error:
            raise httpx.HTTPStatusError(f"{answer.request.method} {answer.url}: {answer.text}", request=answer.request, response=answer)
        body: Object = answer.json()
        return body


def until(what: str, look: Callable[[], Any], *, timeout_s: float = 60.0, pause_s: float = 0.2) -> Any:
    """Looks until it finds something true, and gives that.

    Raises:
        NotAsExpected: it does not in time.
    """
    deadline = time.monotonic() + timeout_s
    while not (found := look()):
        if time.monotonic() > deadline:
            raise NotAsExpected(f"not within {timeout_s:g} s: {what}; seen last: {found!r}")
        time.sleep(pause_s)
    return found


def condition(thing: Object, kind: str) -> str:
    """Status of a condition: "True", "False", "Unknown", or "" where it has none of that kind."""
    return next((one["status"] for one in thing.get("status", {}).get("conditions", []) if one["type"] == kind), "")
