"""Say whether this computer is ready for the course, and what it can run.

Starts with nothing but Python, so that it can say what is missing.
"""

import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
HINT = f"""
What to do, in the folder {HERE}:
  Linux, macOS   make setup
                 .venv/bin/python check_env.py
  Windows        py -m venv .venv
                 .venv\\Scripts\\pip install -e .[notebooks]
                 .venv\\Scripts\\python check_env.py
  Colab          %pip install -e .[notebooks]
  conda          conda env create -f environment.yml
                 conda activate genmodels
                 python check_env.py"""


def main():
    if sys.version_info < (3, 11):  # noqa: UP036 (this file must say so on an older Python)
        return fail(f"This is Python {sys.version.split()[0]}, and sdlab needs 3.11 or newer.")
    try:
        import torch
        from accelerate import Accelerator
    except (ImportError, OSError) as error:
        return fail(f"{sys.executable} does not have what sdlab needs: {error}.")
    print_five_lines(torch, Accelerator)
    try:
        from sdlab import environment

        return print_details(environment)
    except ImportError as error:
        return fail(f"{sys.executable} does not have all that sdlab needs: {error}.")


def print_five_lines(torch, Accelerator):
    """The lines that the homework asks for, in its order: they stay the first."""
    print("PyTorch version:", torch.__version__)
    print("CUDA available:", torch.cuda.is_available())
    print("CUDA version:", torch.version.cuda)
    print("cuDNN version:", torch.backends.cudnn.version())
    Accelerator()
    print("Accelerator initialized successfully!")


def print_details(environment):
    """Versions, memory, disk, and what of the course they are enough for."""
    machine = environment.this_machine()
    versions = environment.versions()
    missing = [package for package, version in versions.items() if version is None]
    print(f"\nPython {sys.version.split()[0]} at {sys.executable}")
    print(", ".join(f"{package} {version}" for package, version in versions.items() if version))
    print(f"\n{environment.describe(machine)}\n")
    for work, (fits, needs) in environment.can_run(machine).items():
        print(f"{work:<42}{'yes' if fits else 'no':<5}(needs: {needs})")
    if missing and missing != ["bitsandbytes"]:
        return fail(f"\nNot installed: {', '.join(missing)}.")
    if missing:
        print("\nbitsandbytes is not installed: torch's AdamW takes the place of 8-bit Adam.")
    return 0


def fail(what):
    print(f"{what}\n{HINT}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
