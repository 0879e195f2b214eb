"""Variants of one test: each run has some of them, and `scripts/test --all` has all."""

import os
from collections.abc import Iterable, Sequence
from typing import TypeVar

T = TypeVar("T")
IS_COMPLETE = "BIRTHMARK_TEST_ALL" in os.environ


def variants(every: Iterable[T], in_each_run: Sequence[T]) -> Sequence[T]:
    """Return what this run has; a variant of each run has to be one of all."""
    known = list(every)
    if unknown := [one for one in in_each_run if one not in known]:
        raise ValueError(f"no variants: {unknown}")
    return known if IS_COMPLETE else in_each_run
