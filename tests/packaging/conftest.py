"""Fixtures of the packaging tests: those that trace skip, or fail, like the kernel tests."""

from tests.kernel.conftest import privileged as privileged
