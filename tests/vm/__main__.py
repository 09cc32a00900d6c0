"""`python -m tests.vm`: see matrix.py."""

import sys

from tools.debian import Unavailable

from .matrix import main

if __name__ == "__main__":
    try:
        sys.exit(main())
    except Unavailable as error:
        sys.exit(f"error: {error}")
