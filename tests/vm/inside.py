"""What runs in a guest, in one Python process: says what FLAK has there, then runs tests and reports each.

The kernel's command line has the arguments of pytest, inside=TEST,TEST, or of the subset all tests, or those of some
files: modules=FILE,FILE
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import flak
from flak.session import Session

from . import MARK

TESTS = Path(__file__).parent.parent / "kernel"

REFUSED = 100
"""The status when FLAK says that it cannot trace there."""
SUBSET = Path(__file__).with_name("subset.txt")


class Reporter:
    """Prints a line for each test as it ends.

    From Linux 7.2 on programs of system calls can be preempted, and the kernel may skip FLAK's meanwhile. FLAK counts
    that and claims nothing then. A test that fails where FLAK said so is skipped.
    """

    def __init__(self, missing: dict[str, str]) -> None:
        """missing: what `describe` found that FLAK cannot see here."""
        self.missing = missing
        self.misses = 0  # of the traces of this module's tests
        self.fixtures_s = 0.0  # what those of this test took: a module's first test waits for its trace
        leave = Session.__exit__

        def leave_and_count(session: Session, *details: Any) -> Any:
            result = leave(session, *details)
            self.misses += session.stats.recursion_misses
            return result

        Session.__exit__ = leave_and_count  # type: ignore[method-assign]

    @pytest.hookimpl(tryfirst=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[Any], request: Any) -> Any:
        """Gives the tests what `describe` found, which is what their fixture `privileged` would find out again."""
        if fixturedef.argname != "privileged":
            return None
        fixturedef.cached_result = (self.missing, fixturedef.cache_key(request), None)
        return self.missing

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Any:
        return (yield from self._skip_what_was_missed())

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Any:
        return (yield from self._skip_what_was_missed())

    def _skip_what_was_missed(self) -> Any:
        try:
            return (yield)
        except AssertionError:
            if self.misses:
                pytest.skip(f"this kernel skipped FLAK's programs {self.misses} times, as FLAK said")
            raise

    @pytest.hookimpl
    def pytest_runtest_teardown(self, nextitem: pytest.Item | None, item: pytest.Item) -> None:
        if nextitem is None or nextitem.path != item.path:
            self.misses = 0

    @pytest.hookimpl
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "setup":
            self.fixtures_s = report.duration
        if report.when == "call" or report.outcome != "passed":
            seconds = report.duration + (self.fixtures_s if report.when == "call" else 0)
            reason = report.longrepr[2] if report.skipped and isinstance(report.longrepr, tuple) else ""
            name = report.nodeid.rpartition("kernel/")[2]
            tell({"test": name, "outcome": report.outcome, "seconds": round(seconds, 2), "reason": reason})


def tell(report: dict[str, object]) -> None:
    """Write a report for the host, on a line of its own."""
    print(f"\n{MARK}{json.dumps(report)}", flush=True)


def describe() -> dict[str, Any]:
    """The kernel, and what FLAK can see there; where it cannot trace, what it says instead."""
    report: dict[str, Any] = {
        "release": platform.release(),
        "machine": platform.machine(),
        "python": platform.python_version(),
    }
    start = time.monotonic()
    try:
        with flak.trace(command=["true"]) as session:
            report["events"] = sum(1 for _ in session)
    except flak.FlakError as error:
        command = [sys.executable, "-m", "flak", "trace", "true"]
        said = subprocess.run(command, capture_output=True, text=True).stderr.strip()
        return {**report, "served": {}, "missing": {}, "error": error.message.splitlines()[0], "said": said}
    seconds = round(time.monotonic() - start, 2)
    return {**report, "seconds": seconds, "served": session.served, "missing": session.missing}


def subset(modules: Sequence[str]) -> list[str]:
    """The tests of the subset, of some files only where any are named."""
    tests = [line for line in SUBSET.read_text().splitlines() if not line.startswith("#")]
    return [test for test in tests if not modules or test.partition("::")[0] in modules]


def _list(words: str) -> list[str]:
    return [word for word in words.split(",") if word]


def main() -> int:
    os.environ |= {"FLAK_TEST_PATIENCE": "10", "FLAK_TEST_WORKLOADS": "/flak/workloads", "FLAK_REQUIRE_KERNEL": "1"}
    host = describe()
    tell(host)
    if "error" in host:
        return REFUSED
    words = dict(word.partition("=")[::2] for word in Path("/proc/cmdline").read_text().split())
    tests = _list(words["inside"]) or [f"{TESTS}/{test}" for test in subset(_list(words["modules"]))]
    options = [
        "-q",
        "-p",
        "no:cacheprovider",
        "--tb=short",
        "--color=no",
        "--continue-on-collection-errors",
        "-c",
        "/flak/pyproject.toml",
    ]
    return int(pytest.main([*options, *tests], [Reporter(host["missing"])]))


if __name__ == "__main__":
    sys.exit(main())
