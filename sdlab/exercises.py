"""Check cells: does an answer hold against what was measured?"""

from __future__ import annotations

import math
from typing import Any


def check(answer: Any, right: Any, why: str) -> None:
    """Say whether an answer holds.

    Args:
        answer: the student's; None or "" means that there is none yet.
        right: the answer, computed from what is on disk; a set or tuple holds several right ones, and numbers
            may differ by 5 %.
        why: where to look, said when the answer doesn't hold.

    Taught in: all notebooks
    """
    if answer is None or answer == "":
        print("Not answered yet: put your answer in the place of None and run the cell again.")
        return
    accepted = right if isinstance(right, set | tuple | list) else (right,)
    if any(_same(answer, one) for one in accepted):
        print(f"{answer}: that holds.")
    else:
        print(f"{answer}: that doesn't hold. {why}")


def _same(answer: Any, right: Any) -> bool:
    if isinstance(right, bool) or not isinstance(right, int | float):
        return bool(str(answer).strip().lower() == str(right).strip().lower())
    return isinstance(answer, int | float) and math.isclose(answer, right, rel_tol=0.05)
