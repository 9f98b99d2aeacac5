"""Values as people read them, by Grafana's names of units."""

from __future__ import annotations

_SUFFIX = {"reqps": " req/s", "cps": "/s", "ops": " ops/s", "cores": " cores", "watt": " W"}


def shown(value: float, unit: str) -> str:
    """A value with its unit, in about three digits."""
    if unit == "percentunit":
        return f"{100 * value:.3g} %" if abs(value) < 1 else f"{100 * value:.0f} %"
    if unit == "s":
        return _seconds(value)
    if unit == "bytes":
        return _scaled(value, ("B", "KiB", "MiB", "GiB", "TiB"), 1024)
    return _scaled(value, ("", "K", "M", "G", "T"), 1000).strip() + _SUFFIX.get(unit, "")


def _seconds(value: float) -> str:
    if value == 0:
        return "0 s"
    for size, name in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"), (1e-3, "ms")):
        if abs(value) >= size:
            return f"{value / size:.3g} {name}"
    return f"{value * 1e6:.3g} µs"


def _scaled(value: float, names: tuple[str, ...], base: int) -> str:
    index = 0
    while abs(value) >= base and index < len(names) - 1:
        value, index = value / base, index + 1
    digits = f"{value:.0f}" if value == int(value) and abs(value) < 10_000 else f"{value:.3g}"
    return f"{digits} {names[index]}".rstrip()
