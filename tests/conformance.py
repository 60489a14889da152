"""The tables in docs/operators.md: what becomes of ONNX's own test cases.

python tests/conformance.py --update docs/operators.md    # writes them anew
python tests/conformance.py --show reduce_mean            # the cases with such names: outcomes and reasons
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import onnx
from conformance_cases import INAPPLICABLE, PARTLY, PASSED, REFUSED, STORED, WRONG, Outcome, all_cases, run

from lrpfast.backends import available
from lrpfast.ops import FOLDED, READERS

COMMAND = "python tests/conformance.py --update docs/operators.md"
BEGIN, END = f"<!-- Generated: {COMMAND} -->", "<!-- End of what is generated. -->"
MISSING = "lrpfast has no such operator"


def run_all(only: str = "") -> list[Outcome]:
    """What becomes of all cases, or of those with `only` in their names, on the definition and the fast kernels."""
    backends = [name for name, fault in available().items() if name in ("native", "numpy") and not fault]
    return [run(case, backends) for case in all_cases() if only in case.name]


# --- the tables ---


def tables(outcomes: Sequence[Outcome]) -> str:
    """The outcomes in Markdown."""
    groups: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in sorted(outcomes, key=lambda outcome: outcome.case.operator):
        if outcome.status != INAPPLICABLE:
            groups[outcome.case.operator].append(outcome)
    read = {name: groups.get(name, []) for name in sorted(READERS)}
    networks = {name: groups.get(name, []) for name in STORED}
    others = {name: group for name, group in groups.items() if name not in {*read, *networks}}
    folded = ", ".join(f"`{name}`" for name in sorted(FOLDED))
    return "\n\n".join(
        (
            f"Cases of onnx {onnx.__version__}.",
            _totals(outcomes),
            "## Operators that are read",
            f"{folded} are evaluated when a model is read, as is any other operator whose inputs are constant.",
            _by_operator(read),
            "## Operators that are not read",
            "Where ONNX defines one by others, a model in which it is written out can be read if those are.",
            _by_operator(others),
            "## Networks",
            _markdown(
                ("cases", "passed", "refused"),
                [(name, _passed(group), _why(group)) for name, group in networks.items()],
            ),
            "## Cases that do not apply",
            _inapplicable(outcomes),
        )
    )


def _totals(outcomes: Iterable[Outcome]) -> str:
    """How many cases there are of each kind, and what became of them."""
    statuses = (PASSED, PARTLY, REFUSED, INAPPLICABLE)
    counts: dict[str, Counter[str]] = {}
    for kind in ("single operators", "operators written out", *STORED, "all"):
        counts[kind] = Counter()
    for outcome in outcomes:
        case = outcome.case
        kind = "operators written out" if case.expanded else "single operators"
        for name in (case.operator if case.operator in STORED else kind, "all"):
            counts[name][outcome.status] += 1
    rows = [(kind, count.total(), *(count[status] for status in statuses)) for kind, count in counts.items()]
    return _markdown(("cases", "", *statuses), rows)


def _by_operator(groups: dict[str, list[Outcome]]) -> str:
    """A row for each operator."""
    rows = []
    for name, group in groups.items():
        alone, written_out = ([o for o in group if o.case.expanded == kind] for kind in (False, True))
        rows.append((name, _passed(alone), _passed(written_out), _why(group)))
    return _markdown(("operator", "passed", "written out", "refused"), rows)


def _passed(group: Sequence[Outcome]) -> str:
    """How many of the cases passed, and in part."""
    if not group:
        return ""
    counts = Counter(outcome.status for outcome in group)
    partly = f", {counts[PARTLY]} in part" if counts[PARTLY] else ""
    return f"{counts[PASSED]} of {len(group)}{partly}"


def _why(group: Sequence[Outcome]) -> str:
    """The reasons for which cases did not pass, the most frequent first."""
    counts = Counter(filter(None, (_reason(outcome) for outcome in group if outcome.status != PASSED)))
    return "; ".join(
        f"{reason} ({count})"
        for reason, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    )


def _reason(outcome: Outcome) -> str:
    """Why a case was refused, without what is particular to it; empty if it is the operator that is missing."""
    missing, others = set(), set()
    for line in outcome.reasons:
        found = re.fullmatch(r"(?:.*?: )??node '.*?' \((\w+)\): (.*)", line, re.DOTALL)
        operator, text = (
            found.groups() if found else (outcome.case.operator, line.removeprefix("the model: "))
        )
        if text == MISSING:
            missing.add(operator)
        else:
            others.add(
                _general(text) if operator == outcome.case.operator else f"{operator}: {_general(text)}"
            )
    if outcome.case.operator in missing:
        return ""
    needs = ["needs " + ", ".join(sorted(missing))] if missing else []
    return "; ".join((*needs, *sorted(others)))


def _general(text: str) -> str:
    """A message without the names and numbers of one case."""
    text = re.sub(r" \('[^']*'\)", "", text)
    text = re.sub(r"'[^']*'", "…", text)
    text = re.sub(r"[(\[][-\d., ]*\d[-\d., ]*[)\]]", "(…)", text)
    text = re.sub(r"(?<![\w.])-?(?:\d{2,}|[2-9])(?:\.\d+)?(?![\w.])|-?\d+\.\d+", "…", text)
    return text.splitlines()[0].replace("|", "\\|")


def _inapplicable(outcomes: Iterable[Outcome]) -> str:
    """The reasons for which cases do not apply, with their numbers and the operators."""
    counts: Counter[str] = Counter()
    operators: dict[str, set[str]] = defaultdict(set)
    for outcome in outcomes:
        if outcome.status == INAPPLICABLE:
            (reason,) = outcome.reasons
            counts[reason] += 1
            operators[reason].add(outcome.case.operator)
    rows = [(why, count, ", ".join(sorted(operators[why]))) for why, count in counts.most_common()]
    return _markdown(("because of", "cases", "of"), rows)


def _markdown(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


# --- the file ---


def updated(text: str, outcomes: Sequence[Outcome]) -> str:
    """A document with its tables made anew.

    Raises
    ------
    ValueError
        It has no place for them.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"the document lacks the lines {BEGIN!r} and {END!r}")
    return f"{before}{BEGIN}\n\n{tables(outcomes)}\n\n{END}{after}"


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--update", metavar="FILE", type=Path, help="write the tables of this document anew")
    parser.add_argument("--show", metavar="TEXT", default="", help="the cases that have TEXT in their names")
    options = parser.parse_args()
    outcomes = run_all("" if options.update else options.show)
    wrong = [outcome for outcome in outcomes if outcome.status == WRONG]
    if options.update and not wrong:
        options.update.write_text(updated(options.update.read_text("utf-8"), outcomes), "utf-8")
    for outcome in wrong if options.update else outcomes:
        print(f"{outcome.case.name}: {outcome.status}", *outcome.reasons, sep="\n    ")
    return len(wrong) > 0


if __name__ == "__main__":
    sys.exit(main())
