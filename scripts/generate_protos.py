"""Generates the Python stubs of every contract under protos/ into libs/protos.

With --check nothing is written: the exit code is 1 where what is committed differs from what would be generated.
"""

from __future__ import annotations

import filecmp
import shutil
import sys
import tempfile
from pathlib import Path

import grpc_tools
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"
STUBS = ROOT / "libs" / "protos"


def generate(target: Path) -> list[Path]:
    """Writes all stubs under `target` and returns their paths relative to it."""
    protos = sorted(str(p.relative_to(PROTOS)) for p in PROTOS.rglob("*.proto"))
    well_known = Path(grpc_tools.__file__).parent / "_proto"
    code = protoc.main(
        [
            "protoc",
            f"-I{PROTOS}",
            f"-I{well_known}",
            f"--python_out={target}",
            f"--grpc_python_out={target}",
            f"--mypy_out=quiet:{target}",
            f"--mypy_grpc_out=quiet:{target}",
            *protos,
        ]
    )
    if code != 0:
        raise SystemExit(code)
    return stubs_under(target)


def stubs_under(folder: Path) -> list[Path]:
    """The stubs in a folder, relative to it."""
    return sorted(p.relative_to(folder) for p in folder.rglob("*_pb2*.py*") if p.suffix in (".py", ".pyi"))


def main() -> int:
    """Generates, or checks with --check."""
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder)
        paths = generate(fresh)
        committed = stubs_under(STUBS)
        if "--check" in sys.argv[1:]:
            stale = [p for p in paths if not (STUBS / p).exists() or not filecmp.cmp(fresh / p, STUBS / p, shallow=False)]
            stale += [p for p in committed if p not in paths]
            for path in stale:
                print(f"libs/protos/{path} is not what protos/ generates; run `make protos`")
            return 1 if stale else 0
        for path in committed:
            (STUBS / path).unlink()
        for path in paths:
            (STUBS / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(fresh / path, STUBS / path)
        print(f"{len(paths)} stubs under libs/protos")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
