"""One property under libFuzzer, guided by the coverage of lrpfast's own code.

python fuzz/target.py PROPERTY FINDINGS [libFuzzer's options] CORPUS
"""

from __future__ import annotations

import hashlib
import importlib
import logging
import os
import pkgutil
import random
import resource
import sys
import traceback
import warnings
from pathlib import Path

import atheris

sys.path.append(str(Path(__file__).parents[1] / "tests"))

MEMORY = 3 * 2**30
"""Bytes of address space that a process may take beyond those that it has when it starts."""

SKIPPED = ("numba", "__main__")

with atheris.instrument_imports(include=["lrpfast"]):
    import lrpfast

    for found in pkgutil.walk_packages(lrpfast.__path__, "lrpfast."):
        if not any(word in found.name for word in SKIPPED):
            importlib.import_module(found.name)

import onnx
from hostile import PROPERTIES
from mutations import mutated


def main() -> None:
    name, findings = sys.argv[1:3]
    warnings.simplefilter("ignore")
    logging.disable()
    check = PROPERTIES[name]
    seen: set[str] = set()
    corpus = _models(Path(sys.argv[-1])) if name == "model" else []
    counts: dict[str, int] = {}

    def one(data: bytes) -> None:
        try:
            outcome = check(data)
        except Exception as error:
            outcome = "broken"
            _report(error, data, Path(findings), name, seen)
        counts[outcome] = counts.get(outcome, 0) + 1
        if sum(counts.values()) % 1000 == 0:
            print("outcomes:", ", ".join(f"{key} {n}" for key, n in sorted(counts.items())), flush=True)

    def mutate(data: bytes, max_size: int, seed: int) -> bytes:
        rng = random.Random(seed)
        if rng.random() < 0.1:
            return atheris.Mutate(data, max_size)
        try:
            model = onnx.ModelProto.FromString(data)
        except Exception:  # bytes that an earlier mutation broke
            model = rng.choice(corpus)
        made = mutated(model, rng, corpus).SerializeToString()
        return made if len(made) <= max_size else data

    _limit_memory()
    options = [sys.argv[0], *sys.argv[3:]]
    if name == "model":
        atheris.Setup(options, one, custom_mutator=mutate)
    else:
        atheris.Setup(options, one)
    atheris.Fuzz()


def _models(folder: Path) -> list[onnx.ModelProto]:
    """Small models whose nodes are brought into others."""
    paths = sorted(folder.iterdir())
    return [onnx.ModelProto.FromString(path.read_bytes()) for path in paths if path.stat().st_size < 4096]


def _report(error: Exception, data: bytes, folder: Path, name: str, seen: set[str]) -> None:
    """Keep the first input that fails in a way, and say how."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "/lrpfast/" in f.filename]
    where = f"{Path(frames[-1].filename).name}:{frames[-1].name}" if frames else "hostile"
    key = f"{type(error).__name__} in {where}"
    if key in seen:
        return
    seen.add(key)
    path = folder / f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:8]}"
    if not path.exists():
        path.write_bytes(data)
        print(f"FOUND {key}: {path}\n{''.join(traceback.format_exception(error)[-12:])}", flush=True)


def _limit_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


if __name__ == "__main__":
    main()
