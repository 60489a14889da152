"""What pytest is told about the benchmarks, and the rates for which pytest-benchmark's tables have no column."""

from __future__ import annotations

import pytest

import lrpfast.backends

MAIN_RATE = "GF/s"


def pytest_report_header() -> str:
    default = lrpfast.backends.describe(lrpfast.backends.get())
    return f"lrpfast {lrpfast.__version__}; networks run on the backend {default}"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what benchmarks recorded as properties: their rates, the same as in `extra_info` of the JSON."""
    rows = [(report.nodeid, dict(report.user_properties)) for report in terminalreporter.getreports("passed")]
    rows = [(name, rates) for name, rates in rows if MAIN_RATE in rates]
    if rows:
        terminalreporter.section("rates")
    for name, rates in rows:
        values = "  ".join(f"{value:7.2f} {unit}" for unit, value in rates.items())
        terminalreporter.write_line(f"{values}  {name.partition('::')[2]}")
