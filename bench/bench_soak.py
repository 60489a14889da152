"""That the soak test finds what leaks, and nothing where nothing does; `make soak` is the long one."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

import pytest
import soak


def test_little_of_all_parts(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Too short to tell anything of memory, which is not what this is about."""
    monkeypatch.setattr(soak, "ALLOWED", dict.fromkeys(soak.ALLOWED, 10**6))
    code = soak.main(["--explanations", "60", "--large", "0", "--threads-minutes", "0.02", "--inputs", "200"])
    said = capsys.readouterr().out
    assert code == 0, said
    assert [line.split("  ")[0] for line in said.splitlines() if line] == [
        "part explanations", "part threads", "part batch"
    ]  # fmt: skip


kept: list[Any] = []
LEAKS: dict[str, Callable[[int], object]] = {
    "memory grows by": lambda i: kept.append(b"x" * (2**25 + 2**20 + i)),
    "open files before": lambda _: kept.append(os.dup(0)),
    "threads before": lambda i: (
        threading.Thread(target=kept[0].wait).start() if i else kept.append(threading.Event())
    ),
}


@pytest.mark.parametrize("complaint", LEAKS)
def test_leaks_are_found(complaint: str) -> None:
    try:
        row = soak.steady("explanations", 12, LEAKS[complaint])
        assert [text for text in row.complaints if complaint in text]
        assert not soak.steady("explanations", 12, lambda _: None).complaints
    finally:
        for thing in kept:
            if isinstance(thing, int):
                os.close(thing)
            elif isinstance(thing, threading.Event):
                thing.set()
        kept.clear()


def test_one_wrong_bit_among_many_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    right, calls = soak.answer_of, [0]

    def once_wrong(*question: Any) -> tuple[bytes, ...]:
        calls[0] += 1
        return right(*question) if calls[0] != 60 else (b"",)

    monkeypatch.setattr(soak, "answer_of", once_wrong)
    monkeypatch.setattr(soak, "ALLOWED", dict.fromkeys(soak.ALLOWED, 10**6))
    (complaint,) = soak.threads(0.02, 4).complaints
    assert "was answered otherwise than alone" in complaint
