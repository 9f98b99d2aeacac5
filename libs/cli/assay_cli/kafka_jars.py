"""Apache Kafka's jars: fetched from Maven Central once, then found again."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path

KAFKA_VERSION = "4.3.1"
_ENDPOINTS = (
    f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}",
    # Kafka logs through slf4j 1.7 and brings no binding. Resolved apart: together with Kafka, jgo would pick an older kafka-clients.
    "org.apache.logging.log4j:log4j-slf4j-impl:2.25.4",
)


class JarsMissing(RuntimeError):
    """The jars are not here and could not be fetched."""


def kafka_jars(cache: Path | None = None) -> list[Path]:
    """The jars of the broker and its logs, all of which belong on the class path.

    Args:
        cache: Folder that remembers where they are; by default in the user's cache folder.

    Raises:
        JarsMissing: Maven Central is not reachable; says what to do.
    """
    folder = cache or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "assay"
    folder.mkdir(parents=True, exist_ok=True)
    remembered = folder / f"kafka-{KAFKA_VERSION}.json"
    with (folder / "kafka.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # others wait here for the one that fetches
        jars = _remembered(remembered)
        if not jars:
            jars = _fetched()
            draft = remembered.with_suffix(".partial")
            draft.write_text(json.dumps([str(jar) for jar in jars]))
            draft.replace(remembered)
    return jars


def _remembered(path: Path) -> list[Path]:
    try:
        jars = [Path(jar) for jar in json.loads(path.read_text())]
    except (FileNotFoundError, ValueError):
        return []
    return jars if all(jar.is_file() for jar in jars) else []


def _fetched() -> list[Path]:
    import jgo

    jars: dict[str, Path] = {}
    try:
        for endpoint in _ENDPOINTS:
            for jar in jgo.build(endpoint).all_jars:
                jars.setdefault(Path(jar).name, Path(jar))
    except Exception as error:
        raise JarsMissing(
            f"Apache Kafka {KAFKA_VERSION} could not be fetched from Maven Central ({error}). It is needed once, then kept. "
            "Make Maven Central or a mirror of it reachable, or set ASSAY_KAFKA_BOOTSTRAP to a Kafka cluster."
        ) from error
    if f"kafka_2.13-{KAFKA_VERSION}.jar" not in jars:
        raise JarsMissing(f"Apache Kafka {KAFKA_VERSION} was fetched without its main jar; remove jgo's cache folder and try again")
    return list(jars.values())
