"""Write the repository's address into the notebooks: their Colab badges and the cell that fetches it there.

python notebooks/publish.py github-name/repository
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

ADDRESS = re.compile(r"(?<=/github/|hub\.com/)[\w.-]+/[\w.-]+(?=/blob/main/notebooks/| sdlab)")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("repository", help="as on GitHub: owner/name")
    repository = parser.parse_args().repository
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise SystemExit(f"the repository must be owner/name, got {repository!r}.")
    for path in sorted(Path(__file__).parent.rglob("[!.]*.ipynb")):
        text, count = ADDRESS.subn(repository, path.read_text(encoding="utf-8"))
        path.write_text(text, encoding="utf-8")
        print(f"{path}: {count} addresses")


if __name__ == "__main__":
    main()
