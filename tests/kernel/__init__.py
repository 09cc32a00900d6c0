"""Tests that trace for real: they run a workload of tests/workloads/ and expect exactly what it did."""
