"""Fuzz lrpfast's readers: python fuzz/run.py --seconds 60 [--only model image …] [--folder build/fuzz].

Each property of `tests/hostile.py` has its share of the time under libFuzzer, in a process of its own. Corpora and
findings stay in the folder; the exit code is 1 if there are findings.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from corpus import write
from hostile import PROPERTIES

TARGET = Path(__file__).with_name("target.py")

SHARES = {"model": 12}
"""How much more time than the others a property has."""

HANG = 10
"""Seconds that one input may take."""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--only", nargs="+", choices=PROPERTIES, default=list(PROPERTIES))
    parser.add_argument("--folder", type=Path, default=Path("build/fuzz"))
    parser.add_argument("--runs", type=int, default=-1, help="end after so many inputs, if time allows")
    # What is covered, and so mutated further, depends on hashes and addresses, among other things.
    parser.add_argument("--seed", type=int, default=0, help="libFuzzer's; runs differ a little all the same")
    given = parser.parse_args()
    findings: Path = given.folder / "findings"
    findings.mkdir(parents=True, exist_ok=True)
    before = set(findings.iterdir())
    for name, seconds in _shared(given.only, given.seconds).items():
        fuzz(name, seconds, given.folder, given.runs, given.seed)
    new = sorted(set(findings.iterdir()) - before)
    for path in new:
        print(f"finding: {path}")
    return bool(new)


def fuzz(name: str, seconds: float, folder: Path, most: int, seed: int) -> None:
    """Fuzz one property; start again where an input ends the process, until the time is up."""
    seeds, corpus = folder / "seeds" / name, folder / "corpus" / name
    corpus.mkdir(parents=True, exist_ok=True)
    write(name, seeds)
    start_time, runs, coverage = time.monotonic(), 0, "0"
    end = start_time + seconds
    log = folder / f"{name}.log"
    with log.open("w") as out:
        while (left := end - time.monotonic()) >= 1 and (most < 0 or runs < most):
            options = [
                f"-runs={most - runs if most > 0 else most}",
                f"-seed={seed}",
                f"-max_total_time={int(left)}",
                f"-timeout={HANG}",
                "-rss_limit_mb=4096",
                "-print_final_stats=1",
            ]
            command = [sys.executable, str(TARGET), name, str(folder / "findings"), *options,
                       f"-artifact_prefix={folder / 'findings'}/{name}-", str(corpus), str(seeds)]  # fmt: skip
            start = out.tell()
            done = subprocess.run(command, stdout=out, stderr=subprocess.STDOUT, check=False)
            said = log.read_bytes()[start:].decode(errors="replace")
            if done.returncode and "Test unit written" not in said:
                sys.exit(f"the target itself failed, not {name}: see the end of {log}")
            runs += max(map(int, re.findall(r"^#(\d+)", said, re.MULTILINE)), default=0)
            coverage = (re.findall(r"cov: (\d+)", said) or [coverage])[-1]
            for line in re.findall(r"^FOUND.*|^==\d+== ?ERROR.*", said, re.MULTILINE):
                print(line, flush=True)
    print(f"{name}: {runs} inputs in {time.monotonic() - start_time:.0f} s, coverage {coverage}", flush=True)


def _shared(names: Sequence[str], seconds: float) -> dict[str, float]:
    """The seconds of each property."""
    shares = {name: SHARES.get(name, 1) for name in names}
    return {name: seconds * share / sum(shares.values()) for name, share in shares.items()}


if __name__ == "__main__":
    sys.exit(main())
