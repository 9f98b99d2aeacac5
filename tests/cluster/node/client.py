"""The test node's connection to the API server."""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx

logger = logging.getLogger(__name__)

Object = dict[str, Any]


class Client:
    """Reads, writes and watches objects."""

    def __init__(self, *, url: str, ca: Path, token: str) -> None:
        self._http = httpx.AsyncClient(
            base_url=url,
            verify=ssl.create_default_context(cafile=ca),
            headers={"Authorization": f"Bearer {token}"},
            timeout=30,
            trust_env=False,
            limits=httpx.Limits(max_connections=200),
        )

    async def find(self, path: str) -> Object | None:
        """The object, or None where there is none."""
        answer = await self._http.get(path)
        return None if answer.status_code == 404 else self._answer(answer)

    async def create(self, path: str, body: Object) -> Object:
        return self._answer(await self._http.post(path, json=body))

    async def patch(self, path: str, body: Object) -> Object | None:
        """Merges `body` into the object; None where that is gone."""
        answer = await self._http.patch(path, content=json.dumps(body), headers={"Content-Type": "application/merge-patch+json"})
        return None if answer.status_code == 404 else self._answer(answer)

    async def delete_now(self, path: str, uid: str) -> None:
        """Removes an object whose end has been seen to; one of the same name that has come since stays."""
        body = {"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0, "preconditions": {"uid": uid}}
        answer = await self._http.request("DELETE", path, json=body)
        if answer.status_code not in (404, 409):
            self._answer(answer)

    async def watch(self, path: str, **query: str) -> AsyncIterator[tuple[str, Object]]:
        """("ADDED" | "MODIFIED" | "DELETED", object) from now on for ever; what was there when it began, or begins again, is ADDED.

        ("SYNCED", {"present": {uid, …}}) follows what was there: anything else is gone.
        """
        while True:
            try:
                answer = self._answer(await self._http.get(path, params=query))
                for item in answer["items"]:
                    yield "ADDED", item
                yield "SYNCED", {"present": {item["metadata"]["uid"] for item in answer["items"]}}
                asked = {**query, "watch": "1", "resourceVersion": answer["metadata"]["resourceVersion"], "timeoutSeconds": "1800"}
                async with self._http.stream("GET", path, params=asked, timeout=httpx.Timeout(30, read=None)) as stream:
                    stream.raise_for_status()
                    async for line in stream.aiter_lines():
                        event = json.loads(line)
                        if event["type"] == "ERROR":
                            break
                        yield event["type"], event["object"]
            except httpx.HTTPError as error:
                logger.warning("watch of %s broke and begins again: %s", path, error)
                await asyncio.sleep(0.5)

    def _answer(self, answer: httpx.Response) -> Object:
        if answer.is_error:
            raise httpx.HTTPStatusError(f"{answer.request.method} {answer.url}: {answer.text}", request=answer.request, response=answer)
        body: Object = answer.json()
        return body
