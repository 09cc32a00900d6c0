"""FLAK's tests. A package: else tests/packaging/ is taken for PyPI's `packaging`, which plugins of pytest import."""
