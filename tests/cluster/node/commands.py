"""Short programs that the test node calls."""

from __future__ import annotations

import asyncio


class CommandFailed(RuntimeError):
    """A program ended with an error; says what it wrote."""


async def call(*command: str, given: str = "", timeout_s: float = 30.0) -> str:
    """Runs a program to its end and gives its output.

    Raises:
        CommandFailed: its exit code is not 0, or it took too long.
    """
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(given.encode()), timeout_s)
    except TimeoutError:
        process.kill()
        await process.wait()
        raise CommandFailed(f"{' '.join(command)}: not done within {timeout_s:g} s") from None
    if process.returncode != 0:
        raise CommandFailed(f"{' '.join(command)}: exit code {process.returncode}: {output.decode(errors='replace').strip()}")
    return output.decode(errors="replace")
