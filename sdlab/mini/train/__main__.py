"""Train the mini model: `python -m sdlab.mini.train`.

On several cores or GPUs: `torchrun --nproc-per-node 2 -m sdlab.mini.train`.
"""

from __future__ import annotations

import tyro

from .recipe import Recipe, train

if __name__ == "__main__":
    train(tyro.cli(Recipe, description=__doc__))
