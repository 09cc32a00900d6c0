"""`python -m flak` without the current folder on Python's path.

Python puts it there first, so a numpy.py or typer.py in a folder of somebody else's would be run, by root perhaps.
This is the first module that the package imports, and it works at import: __main__ would be too late, because the
package comes before it. Only sys and os are used, which Python itself has imported already. `flak`, the installed
command, is not started that way. What cannot be helped is a `flak` in that folder: it would be run in place of this.
"""

# pathlib is not in memory yet, so it might be the folder's own:
# ruff: noqa: PTH100, PTH109, PTH120, PTH121

from __future__ import annotations

import os
import sys

__all__: list[str] = []


def _is_run_by_module() -> bool:
    """This is `python -m flak`: while Python looks for the module, argv begins with "-m" in place of its file."""
    if sys.argv[:1] != ["-m"] or len(sys.orig_argv) < len(sys.argv):
        return False
    name = sys.orig_argv[-len(sys.argv)]  # "flak", or with the option in one word "-mflak"
    return name == "flak" or (name.startswith("-") and name.endswith("mflak"))


def _drop_current_folder() -> None:
    """Unless FLAK itself lies there, as in a checkout."""
    try:
        here = os.getcwd()
    except OSError:  # it was removed: Python has not put it there
        return
    if sys.path[:1] not in ([""], [here]):
        return
    if not os.path.samefile(here, os.path.dirname(os.path.dirname(os.path.abspath(__file__)))):
        del sys.path[0]


if not sys.flags.safe_path and _is_run_by_module():
    _drop_current_folder()
