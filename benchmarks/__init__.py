"""What FLAK costs, measured: `python -m benchmarks`, as root, writes docs/overhead.md.

document    the subjects put together; what holds for all of them
calls, bystander, faults, drain, volume, analysis, startup   one subject each: `measure(bench)` gives a Section
bench       where and how thoroughly to measure
rounds      configurations in turn, rounds that count
spread      medians and quartiles
machine     CPUs, quiet, what the machine is
workloads   the programs that are traced
tracers     running them under FLAK, under empty programs, under other tools
tables      Markdown

Ratios within a round are the result; nanoseconds are of the machine that it ran on.
"""
