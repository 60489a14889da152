"""Hoisting: what a pass back computes from the network's values alone is done once, with the forward pass.

So that a pass back can be run for one relevance after another, in a plan that keeps what it reads. Denominators
are the bulk of it. Done before fusion, lest a division end the product whose result is to be kept.
"""

from __future__ import annotations

from dataclasses import replace

from .steps import Back, Draft, Step


def hoisted(draft: Draft) -> Draft:
    """The draft with all steps that no relevance reaches in the forward pass, and kept to the end."""
    forward = list(draft.forward)
    backs = tuple(_without_constant(back, forward) for back in draft.backs)
    return replace(draft, forward=tuple(forward), backs=backs, keeps=True)


def _without_constant(back: Back, forward: list[Step]) -> Back:
    """The pass with its steps that do not depend on relevance moved to the end of `forward`."""
    numbers = {view.array for view in back.numbers}  # they are cleared before each pass
    reached = {back.initial.array}
    steps = []
    for step in back.steps:
        if reached.isdisjoint(step.reads()) and numbers.isdisjoint(step.writes()):
            forward.append(step)
        else:
            reached.update(step.writes())
            steps.append(step)
    return replace(back, steps=tuple(steps))
