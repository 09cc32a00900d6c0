"""Which tests may run beside which, when pytest-xdist has several workers."""

from pathlib import Path

import pytest

ONE_AFTER_THE_OTHER = ("kernel", "packaging")
"""Folders whose tests share a worker: a trace may see what another does, and packages are built in one place."""


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist looks at the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Groups the tests of such a folder."""
    for item in items:
        folder = item.path.relative_to(Path(__file__).parent).parts[0]
        if folder in ONE_AFTER_THE_OTHER:
            item.add_marker(pytest.mark.xdist_group(folder))
