"""`python -m benchmarks [--quick] [SUBJECT…]`: measure, as root. A full run writes docs/overhead.md."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import time
from pathlib import Path

from benchmarks import document
from benchmarks.bench import Bench
from flak.target import invoking_owner

SUBJECTS = ("calls", "bystander", "requests", "faults", "drain", "volume", "analysis", "startup")
PAGE = Path(__file__).parent.parent / "docs" / "overhead.md"


def main() -> int:
    """Measure and write; the exit status."""
    parser = argparse.ArgumentParser(prog="benchmarks", description="Measure what FLAK costs (about five minutes).")
    parser.add_argument("subjects", nargs="*", metavar="SUBJECT", help=f"of {', '.join(SUBJECTS)}; default: all")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, under a minute")
    parser.add_argument("--patience", type=float, metavar="S", help="seconds to wait, in all, for a quiet machine")
    parser.add_argument("-o", "--output", type=Path, help="default: docs/overhead.md for a full run, else stdout")
    options = parser.parse_args()
    if unknown := set(options.subjects) - set(SUBJECTS):
        parser.error(f"no subject called {', '.join(sorted(unknown))}")
    if os.geteuid() != 0:
        parser.error("tracing needs root: sudo .venv/bin/python -m benchmarks")
    is_full = not (options.subjects or options.quick)
    output = options.output or (PAGE if is_full else None)

    began = time.time()
    patience_s = options.patience if options.patience is not None else 5 if options.quick else 60
    with Bench(is_quick=options.quick, patience_s=patience_s) as bench:
        chosen = [name for name in SUBJECTS if name in options.subjects or not options.subjects]
        sections = [importlib.import_module(f"benchmarks.{name}").measure(bench) for name in chosen]
        page = document.write(bench, sections, began)
    if output:
        output.write_text(page)
        if owner := invoking_owner():
            os.chown(output, *owner)
        print(f"written to {output}", file=sys.stderr)
    else:
        print(page, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
