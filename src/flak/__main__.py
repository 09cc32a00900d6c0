"""`python -m flak`: the command line, for where its script is not on PATH.

The current folder is taken off Python's path before this (`_safe_path`).
"""

import sys

from flak.cli import main

if __name__ == "__main__":
    sys.exit(main())
