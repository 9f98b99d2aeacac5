"""Which backend a model is loaded into."""

from __future__ import annotations

import enum
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled

from assay_data.errors import DataError
from assay_data.fingerprints import fingerprint_folder
from assay_data.storage import is_local, local_path
from assay_kit.errors import InvalidArgument, Unavailable
from assay_policy.backends.local import LocalBackend
from assay_policy.backends.openai_server import OpenAIBackend
from assay_policy.backends.remote import RemoteLoop
from assay_policy.backends.tgi_server import TgiBackend
from assay_policy.device import Device
from assay_policy.generation import Facts, GenerationBackend
from assay_policy.settings import PolicySettings


class BackendKind(enum.Enum):
    """Where generation happens."""

    TRANSFORMERS = "transformers"
    OPENAI = "openai"
    TGI = "tgi"


class Backends:
    """Makes backends of every kind; owns what they share: the device's thread and the loop of the remote ones."""

    def __init__(self, settings: PolicySettings) -> None:
        """Starts both threads."""
        self._settings = settings
        self._device = Device(queue_requests=settings.policy_queue_requests)
        self._loop = RemoteLoop()
        self._makers = {
            BackendKind.TRANSFORMERS: self._local,
            BackendKind.OPENAI: self._openai,
            BackendKind.TGI: self._tgi,
        }

    def make(self, kind: BackendKind, uri: str, *, served_model: str, known: Facts | None = None) -> GenerationBackend:
        """Loads or connects; blocks until it is ready.

        Args:
            kind: which.
            uri: a folder or hub id, or http(s)://host:port.
            served_model: model at a generation server; empty takes the first it lists.
            known: facts from an earlier run; with them a server is not asked, so that it may come up later than this service.

        Raises:
            AssayError: says what is wrong with the URI, or that the server or hub does not answer.
        """
        if (kind is not BackendKind.TRANSFORMERS) != is_http(uri):
            raise InvalidArgument("uri", f"{uri} does not fit {kind.value}: servers are http(s)://host:port, models a folder or hub id")
        return self._makers[kind](uri, served_model, known)

    def close(self) -> None:
        """Ends both threads."""
        self._device.close()
        self._loop.close()

    def _local(self, uri: str, served_model: str, known: Facts | None) -> GenerationBackend:
        if served_model:
            raise InvalidArgument("served_model", "belongs to generation servers; leave it empty for a folder or hub id")
        folder = model_folder(uri)
        return LocalBackend.load(
            folder,
            fingerprint=fingerprint_of(folder),
            device=self._device,
            torch_device=self._settings.policy_device,
            dtype=self._settings.policy_dtype,
            chunk_answers=self._settings.policy_chunk_answers,
        )

    def _openai(self, uri: str, served_model: str, known: Facts | None) -> GenerationBackend:
        return OpenAIBackend.connect(
            uri,
            served_model=served_model,
            loop=self._loop,
            api_key=self._settings.policy_openai_api_key.get_secret_value(),
            concurrency=self._settings.policy_remote_concurrency,
            timeout_seconds=self._settings.policy_remote_timeout_seconds,
            known=known,
        )

    def _tgi(self, uri: str, served_model: str, known: Facts | None) -> GenerationBackend:
        return TgiBackend.connect(
            uri,
            served_model=served_model,
            loop=self._loop,
            token=self._settings.policy_tgi_token.get_secret_value(),
            concurrency=self._settings.policy_remote_concurrency,
            timeout_seconds=self._settings.policy_remote_timeout_seconds,
            known=known,
        )


def is_http(uri: str) -> bool:
    """Whether the URI is that of a server."""
    return uri.startswith(("http://", "https://"))


def model_folder(uri: str) -> Path:
    """The folder of a model on local disk; a hub id, or hf://id, is fetched through the hub's cache.

    Raises:
        InvalidArgument: there is no such folder or model.
        Unavailable: the hub does not answer.
    """
    hub_id = uri.removeprefix("hf://")
    try:
        if not uri.startswith("hf://") and (not is_local(uri) or uri.startswith("file://") or Path(uri).expanduser().exists()):
            return local_path(uri)
        return Path(snapshot_download(hub_id))
    except DataError as error:
        raise InvalidArgument("uri", str(error)) from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        raise InvalidArgument("uri", f"there is no folder {uri}, and the hub's cache has no such model: {error}") from error
    except HFValidationError as error:
        raise InvalidArgument("uri", f"there is no folder {uri}, and it is no hub id") from error
    except HfHubHTTPError as error:
        if error.response is not None and error.response.status_code in (401, 403, 404):
            raise InvalidArgument("uri", f"the hub refuses {hub_id}: {error}") from error
        raise Unavailable(f"the hub does not answer for {hub_id}: {error}") from error


def fingerprint_of(folder: Path) -> str:
    """Fingerprint of a model's folder.

    Raises:
        InvalidArgument: there are no weights in it.
    """
    try:
        return fingerprint_folder(folder).fingerprint
    except DataError as error:
        raise InvalidArgument("uri", str(error)) from error
