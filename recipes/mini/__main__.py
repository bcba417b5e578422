"""Train the mini model: `python -m recipes.mini`.

On several cores or GPUs: `torchrun --nproc-per-node 2 -m recipes.mini`.
"""

from __future__ import annotations

import tyro

from .recipe import Recipe, train

if __name__ == "__main__":
    train(tyro.cli(Recipe, description=__doc__))
