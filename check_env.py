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
    from sdlab import machine  # beside this file; it imports nothing that may be missing

    try:
        print(machine.check())
    except (ImportError, OSError) as error:
        return fail(f"{sys.executable} does not have what sdlab needs: {error}.")
    missing = [name for name, version in machine.versions().items() if version is None]
    return fail("") if set(missing) - {"bitsandbytes"} else 0


def fail(what):
    print(f"{what}\n{HINT}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
