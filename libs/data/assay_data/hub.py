"""Datasets of the Hugging Face hub, asked briefly: where no hub answers, that is said at once."""

from __future__ import annotations

import re
from pathlib import Path

from assay_data.errors import DataError, HubUnavailable
from assay_data.rows import SUFFIXES

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+(/[\w./-]+)?")
ANSWER_WITHIN_SECONDS = 5.0
"""How long a hub may take to answer the first question."""


def is_hub_id(uri: str) -> bool:
    """Whether a text can be a hub id: ``hf://owner/name[/folder or file]``, or the same without the scheme and not there on disk."""
    if uri.startswith("hf://"):
        return True
    return bool(_HUB_ID.fullmatch(uri)) and not Path(uri).exists()


def hub_files(uri: str, *, timeout_seconds: float = ANSWER_WITHIN_SECONDS) -> list[tuple[Path, str]]:
    """Fetches the data files of a hub dataset; of each the local path and the name within the dataset, sorted by name.

    Args:
        uri: ``hf://owner/name``, ``hf://datasets/owner/name`` or ``owner/name``, with a folder or file of it appended where wanted.
        timeout_seconds: how long the hub may take to answer.

    Raises:
        HubUnavailable: where no hub answers.
        DataError: where the hub has no such dataset, or the dataset no such files.
    """
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled, RepositoryNotFoundError

    repository, inside = _split(uri)
    try:
        listed = HfApi().dataset_info(repository, timeout=timeout_seconds)
        names = sorted(item.rfilename for item in listed.siblings or [])
        wanted = [name for name in names if name.endswith(SUFFIXES) and (name == inside or name.startswith(f"{inside}/" if inside else ""))]
        if not wanted:
            raise DataError(uri, 0, "", f"no {', '.join(SUFFIXES)} file there; the dataset has {', '.join(names[:20]) or 'no files'}")
        return [
            (Path(hf_hub_download(repository, name, repo_type="dataset", revision=listed.sha, etag_timeout=timeout_seconds)), name)
            for name in wanted
        ]
    except RepositoryNotFoundError as error:
        raise DataError(uri, 0, "", "neither a file or folder here nor a dataset of the hub") from error
    except OfflineModeIsEnabled as error:
        raise HubUnavailable(uri, 0, "", "no such file or folder here, and the hub is switched off (HF_HUB_OFFLINE)") from error
    except (HfHubHTTPError, OSError) as error:
        raise HubUnavailable(uri, 0, "", f"no such file or folder here, and no hub answers ({type(error).__name__})") from error
    except Exception as error:
        if _on_the_way(error):
            raise HubUnavailable(uri, 0, "", f"no such file or folder here, and no hub answers ({type(error).__name__})") from error
        raise


def _on_the_way(error: BaseException) -> bool:
    """Whether a failure is one of the network: the hub's HTTP library is its own choice and changes (httpx2 today)."""
    library = type(error).__module__.split(".")[0].rstrip("0123456789")
    causes = error
    while (cause := causes.__cause__ or causes.__context__) is not None:
        if isinstance(cause, OSError):
            return True
        causes = cause
    return library in ("httpx", "httpcore", "requests", "urllib")


def _split(uri: str) -> tuple[str, str]:
    parts = uri.removeprefix("hf://").removeprefix("datasets/").strip("/").split("/")
    if len(parts) < 2:
        raise DataError(uri, 0, "", "a hub id is owner/name, for example hf://Anthropic/hh-rlhf/harmless-base")
    return "/".join(parts[:2]), "/".join(parts[2:])
