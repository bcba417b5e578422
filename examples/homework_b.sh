#!/usr/bin/env bash
# Homework B from the first training to the report; `sdlab homework B` prints its commands, to read, change or paste.
#
#   examples/homework_b.sh              on mini, without a GPU
#   BASE=sd15 examples/homework_b.sh    on Stable Diffusion 1.5
#
# Photos are in data/instance_images (`sdlab prepare`). What is finished is not done again.
set -euo pipefail
program="$(command -v "${SDLAB:-sdlab}")"
sdlab() { "$program" "$@"; }
commands="$(sdlab homework B --base "${BASE:-mini}")"
eval "$commands"
