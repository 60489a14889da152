"""What was measured as text: lines of a terminal, tables of a document, and the documents that they go into."""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from lrpfast.benchmark import medians

CONTESTANTS = ("predict", "explain", "numba", "zennit", "captum")

HEADER = (
    f"{'network':18} {'batch':>5} {'threads':>7} {'onnxruntime':>14} "
    f"{' '.join(f'{name:>8}' for name in CONTESTANTS)} {'faster than zennit':>19}  composite"
)


@dataclass(frozen=True)
class Row:
    """Measurements of one network, batch, number of threads and composite.

    Attributes
    ----------
    products : float
        Products with the layers' matrices that an explanation takes; a prediction takes 1.
    memory : int
        Bytes of the arena, which all arrays of an explanation share.
    seconds : dict of str to list of float
        For each contestant the time of each of its turns.
    errors : dict of str to float
        How far answers were apart at most; `MOST` in compare.py says what is meant.
    absent : dict of str to str
        Contestants that cannot take part, and why.
    """

    network: str
    batch: int
    threads: int
    composite: str
    products: float
    memory: int
    seconds: dict[str, list[float]]
    errors: dict[str, float]
    absent: dict[str, str]

    @classmethod
    def of(cls, entry: dict[str, Any]) -> Row:
        """A row as JSON has it."""
        return cls(**{field.name: entry[field.name] for field in fields(cls)})

    @property
    def medians(self) -> dict[str, float]:
        """Median seconds of each contestant."""
        return medians(self.seconds)

    @property
    def multiples(self) -> dict[str, float]:
        """The same, onnxruntime's being the unit."""
        unit = self.medians["onnxruntime"]
        return {name: median / unit for name, median in self.medians.items()}

    @property
    def gain(self) -> float:
        """How many times as fast as zennit we are."""
        return self.medians["zennit"] / self.medians["explain"]


def digits(value: float) -> str:
    """A number with three digits, or all of those before the point."""
    return f"{value:.{max(0, 2 - len(str(int(value))) + 1)}f}"


def cells(row: Row, contestants: Sequence[str] = CONTESTANTS) -> tuple[str, ...]:
    """What stands in the columns."""
    multiples = (digits(row.multiples[name]) if name in row.seconds else "–" for name in contestants)
    unit = f"{digits(1e3 * row.medians['onnxruntime'])} ms"
    return (row.network, str(row.batch), str(row.threads), unit, *multiples, f"{digits(row.gain)} ×")


def line(row: Row) -> str:
    """A line of the table in the terminal."""
    network, batch, threads, unit, *multiples, gain = cells(row)
    shown = " ".join(f"{multiple:>8}" for multiple in multiples)
    return f"{network:18} {batch:>5} {threads:>7} {unit:>14} {shown} {gain:>19}  {row.composite}"


def notes(result: dict[str, Any], rows: Sequence[Row]) -> list[str]:
    """What the columns mean, who is missing and why, and how far the answers were apart."""
    worst = {kind: max(row.errors[kind] for row in rows) for kind in rows[0].errors}
    said = [
        f"onnxruntime: inference of the whole batch, median of {result['repeats']} turns; the others as multiples "
        f"of it. The contestants after explain had {result['peer_repeats']} turns.",
        f"Predictions differ from onnxruntime's by at most {worst['prediction']:.0e} of the largest output, relevance "
        f"from zennit's by {worst['zennit']:.0e} (relative L2 distance, the worst sample's); "
        f"{worst['unexplained']:.0e} of the relevance is unexplained at most.",
    ]
    if any("numba" in row.seconds for row in rows):
        said.append(
            f"numba: lrpfast explain on the Numba backend; its relevance differs by {worst['numba']:.0e}."
        )
    if any("captum" in row.seconds for row in rows):
        said.append(
            "captum runs α1β0 in convolutions but the first, and ε in the others; its relevance differs by at most "
            f"{worst['captum']:.0e} from lrpfast's with the same rules."
        )
    reasons: dict[str, dict[str, None]] = defaultdict(dict)
    for row in rows:
        for name, reason in row.absent.items():
            if row.composite == result["composite"]:
                reasons[f"{name} {reason}"][row.network] = None
    said += [f"–: {reason} ({', '.join(networks)})." for reason, networks in reasons.items()]
    return said


def setting(result: dict[str, Any]) -> str:
    """What was measured where."""
    machine = result["machine"]
    packages = (f"{name} {machine[name]}" for name in ("onnxruntime", "torch", "zennit", "captum"))
    return (
        f"`{result['composite']}`, float32, on {machine['cpu']} ({machine['cpus']} CPUs); lrpfast "
        f"{machine['lrpfast']}, {machine['backend']}, with {', '.join(packages)}."
    )


def table(result: dict[str, Any], rows: Sequence[Row]) -> list[str]:
    """Lines of Markdown, for the first composite."""
    main = [row for row in rows if row.composite == result["composite"]]
    shown = [name for name in CONTESTANTS if any(name in row.seconds for row in main)]
    columns = ("network", "batch", "threads", "onnxruntime", *shown, "faster than zennit")
    lines = markdown(columns, 1, (cells(row, shown) for row in main))
    return [setting(result), "", *lines, "", *listed(notes(result, main))]


def short_table(result: dict[str, Any], rows: Sequence[Row]) -> list[str]:
    """Of each network the first line alone, without notes."""
    first = {row.network: row for row in reversed(rows) if row.composite == result["composite"]}
    chosen = [row for row in rows if first.get(row.network) is row]
    columns = ("network", "batch", "threads", "onnxruntime", *SHORT)
    lines = (cells(row, SHORT)[:-1] for row in chosen)
    return [setting(result), "", *markdown(columns, 1, lines)]


SHORT = ("predict", "explain", "zennit")


def speedup_table(rows: Sequence[Row]) -> list[str]:
    """How much faster several threads are than one; nothing if there are no such rows."""
    alone = {(row.network, row.batch, row.composite): row for row in rows if row.threads == 1}
    lines = []
    for row in rows:
        one = alone.get((row.network, row.batch, row.composite))
        if row.threads == 1 or one is None:
            continue
        gains = [one.medians[name] / row.medians[name] for name in SPEEDUPS]
        lines.append((row.network, str(row.batch), str(row.threads), *(f"{gain:.2f} ×" for gain in gains)))
    if not lines:
        return []
    said = "How many times as fast as one thread each of them is with so many."
    return [*markdown(("network", "batch", "threads", *SPEEDUPS), 1, lines), "", *listed([said])]


SPEEDUPS = ("onnxruntime", "predict", "explain")


def preset_table(rows: Sequence[Row]) -> list[str]:
    """What presets cost beside the first one; nothing if there is only one."""
    groups: dict[tuple[str, int, int], list[Row]] = defaultdict(list)
    for row in rows:
        groups[row.network, row.batch, row.threads].append(row)
    compared = [(group[0], row) for group in groups.values() if len(group) > 1 for row in group]
    if not compared:
        return []
    columns = ("network", "batch", "threads", "preset", "products", "explain", "time of each", "further products",
               "time of each of those", "at most 1", "faster than zennit", "arena")  # fmt: skip
    said = [
        "Products with the layers' matrices in an explanation, its prediction included; each counts as much as its "
        "layer's share of the multiplications of a prediction.",
        f"Times in onnxruntime's inferences. Further products are those beyond {compared[0][0].composite}'s; the "
        "goal is that one costs no more than an inference by onnxruntime.",
        "The arena holds all arrays of an explanation but weights.",
    ]
    return [*markdown(columns, 1, (preset_cells(*pair) for pair in compared)), "", *listed(said)]


def preset_cells(first: Row, row: Row) -> tuple[str, ...]:
    """What stands in the columns of `preset_table`."""
    explain, further = row.multiples["explain"], row.products - first.products
    cells = [row.network, str(row.batch), str(row.threads), row.composite, f"{row.products:.2f}"]
    cells += [
        digits(explain),
        f"{explain / row.products:.2f}",
        f"{further:+.2f}" if row is not first else "–",
    ]
    if further > LEAST_FURTHER:
        price = (explain - first.multiples["explain"]) / further
        cells += [f"{price:.2f}", "yes" if price <= 1 else "no"]
    else:
        cells += ["–", "–"]
    return (*cells, f"{digits(row.gain)} ×", f"{digits(row.memory / 2**20)} MiB")


LEAST_FURTHER = 0.1
"""Fewer further products say nothing about the price of one."""


def process_table(processes: Sequence[dict[str, Any]]) -> list[str]:
    """Lines of Markdown; none if no processes were measured."""
    if not processes:
        return []
    columns = ("network", "onnxruntime predicts once", "lrpfast explain")
    by_network: dict[str, dict[str, str]] = defaultdict(dict)
    for entry in processes:
        median = medians({key: entry[key] for key in ("seconds", "mib")})
        cell = f"{median['seconds']:.2f} s, {median['mib']:.0f} MiB"
        by_network[entry["network"]][entry["program"]] = cell
    lines = markdown(columns, 1, ((name, *found.values()) for name, found in by_network.items()))
    return [*lines, "", *listed([
        "Whole processes, from their start to their end, on all CPUs: a Python that imports onnxruntime and predicts "
        "one picture; `lrpfast explain MODEL PHOTO -o HEATMAP`. Peak memory is the resident set's maximum.",
    ])]  # fmt: skip


def markdown(columns: Sequence[str], words: int, rows: Any) -> list[str]:
    """A table; all but the first `words` columns are numbers."""
    rule = ["---"] * words + ["---:"] * (len(columns) - words)
    return [f"| {' | '.join(entries)} |" for entries in (columns, rule, *rows)]


def listed(said: Sequence[str]) -> list[str]:
    return [f"- {entry}" for entry in said]


def update(path: Path, blocks: dict[str, list[str]]) -> None:
    """Put each block between its markers, `<!-- name:begin -->` and `<!-- name:end -->`, where a document has them."""
    text = path.read_text()
    found = False
    for name, lines in blocks.items():
        begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
        pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
        block = "\n".join([begin, *lines, end])
        text, count = pattern.subn(lambda _, block=block: block, text)  # type: ignore[misc]
        found = found or count > 0
    if not found:
        known = " or ".join(f"<!-- {name}:begin --> and <!-- {name}:end -->" for name in blocks)
        sys.exit(f"{path} has no place for the tables; expected lines {known}")
    path.write_text(text)
