"""The kernel matrix: FLAK's wheel in guests with other kernels and on another architecture, under QEMU's emulation.

    debian.py    packages of any suite and architecture, through an apt of its own
    kernels.py   which kernels there are: found by their packages' names, unpacked
    images.py    what a guest boots from: an initramfs, a root with a Python, and FLAK with its tests
    guests.py    one guest's run: its boot, what it reports
    inside.py    what runs in the guest
    matrix.py    all of it, two guests at a time; the table of docs/kernels.md

`python -m tests.vm` or `make test-kernels`. Needs root, a Debian mirror and QEMU, but no KVM. Guests have no network.
What is downloaded and made once is kept in ~/.cache/flak/vm, or in the folder that FLAK_VM_CACHE names.
"""

MARK = "@@"
"""Begins a line that a guest reports: JSON, or EXIT=status at the end. Other lines are what pytest prints."""
