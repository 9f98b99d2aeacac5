"""The figures of docs/sizing.md: what it calls measured is in the benchmarks' page, and its arithmetic is right."""

from __future__ import annotations

import re

import pytest
from support.chart import ROOT

PAGE = (ROOT / "docs" / "sizing.md").read_text()
BENCHMARKS = (ROOT / "tests" / "benchmarks" / "README.md").read_text()


def rows(first_cell: str) -> list[list[str]]:
    """The cells of the rows of all tables whose first cell fits."""
    found = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line.startswith("|")]
    return [cells for cells in found if re.match(first_cell, cells[0])]


def number(text: str) -> float:
    return float(text.replace(",", "").replace("$", ""))


@pytest.mark.parametrize(("size", "load"), [("5", "single-hh"), ("5", "best-of-16-hh"), ("100", "single-hh"), ("100", "best-of-16-hh")])
def test_measured_costs_are_those_of_the_benchmarks(size: str, load: str) -> None:
    (table,) = re.findall(rf"^\| {size}m \|.*?(?=^\| 100m|\Z)", BENCHMARKS, flags=re.MULTILINE | re.DOTALL)
    measured = re.search(rf"\*\*{load}\*\* assay \| [\d.]+ \| ([\d.]+)", table)
    (row,) = [cells for cells in rows(f"{size} million") if cells[1] == load]
    assert measured and row[2] == measured[1]
    tokens = 220 if load == "single-hh" else 145 / 16 + 75
    assert number(row[3]) == pytest.approx(2 * float(size) * 1e6 * tokens / float(row[2]) / 1e6, rel=0.01)


def test_measured_rates_of_the_doors_are_those_of_the_benchmarks() -> None:
    for figure in ("2208", "2180", "0.30", "0.48"):
        assert figure in PAGE and figure in BENCHMARKS


def devices() -> dict[str, tuple[float, list[str]]]:
    return {cells[0]: (number(cells[1]), cells[2:]) for cells in rows(r"(L4|L40S|A100|H100 SXM) \(") if len(cells) == 5}


def test_scores_of_a_gpu_follow_from_the_formula() -> None:
    assert len(devices()) == 4
    for peak, shown in devices().values():
        for billions, cell in zip((0.6, 8, 27), shown, strict=True):
            if cell != "does not fit":
                assert number(cell) == pytest.approx(0.3 * peak * 1e12 / (2 * billions * 1e9 * 84), rel=0.02)


def test_costs_follow_from_rates_and_prices() -> None:
    sizes = ("0.6 B", "8 B", "27 B")
    priced = [cells for cells in rows(r"(L4|L40S|A100|H100 SXM) \(") if len(cells) == 4]
    assert len(priced) == 10
    for device, price, size, cost in priced:
        rate = number(devices()[device][1][sizes.index(size)])
        assert number(cost) == pytest.approx(1e6 / rate / 3600 * float(price), rel=0.03)


def test_a_billion_a_day_needs_what_it_says() -> None:
    capacity = 1e9 / 86400 / 0.7
    assert f"{1e9 / 86400:,.0f} scores a second" in PAGE and f"{capacity:,.0f} of capacity" in PAGE
    worked = [cells for cells in rows(r".*") if len(cells) == 6 and cells[5].startswith("$")]
    assert len(worked) == 6
    for *_, rate, count, _, _ in worked:
        assert number(count) == pytest.approx(capacity / number(rate), rel=0.03, abs=1)
