#!/usr/bin/env bash
# Homework A from the first training to the report; `sdlab homework A` prints its commands, to read, change or paste.
#
#   examples/homework_a.sh              on mini, without a GPU
#   BASE=sd15 examples/homework_a.sh    on Stable Diffusion 1.5
#
# Photos are in data/instance_images (`sdlab prepare`). What is finished is not done again.
set -euo pipefail
program="$(command -v "${SDLAB:-sdlab}")"
sdlab() { "$program" "$@"; }
commands="$(sdlab homework A --base "${BASE:-mini}")"
eval "$commands"
