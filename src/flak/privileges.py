"""What is given up once tracing is attached: from then on FLAK reads what it mapped, and writes what it made of it.

Loading and attaching need much; parsing, formatting and writing, where hostile names pass through, need nothing. So
the command line becomes the user who called sudo and keeps three capabilities that only read and signal:
CAP_DAC_READ_SEARCH and CAP_SYS_PTRACE for the names of containers, which are in files and processes of others, and
CAP_KILL to pass signals on to a command that runs as somebody else. Kernels before 5.19 want CAP_BPF, or CAP_SYS_ADMIN,
for every bpf(2) call unless kernel.unprivileged_bpf_disabled is 0 ("bpf: refine kernel.unprivileged_bpf_disabled
behaviour"), also to run an iterator that is loaded: there the lesser one of the two is kept, too. See capabilities(7).
"""

from __future__ import annotations

import contextlib
import os

from flak.bpf import Btf, limit_capabilities, permitted_capabilities, prctl
from flak.target import User

__all__ = ["shed"]

_CAP_DAC_READ_SEARCH, _CAP_KILL, _CAP_SETPCAP, _CAP_SYS_PTRACE = 2, 5, 8, 19
_CAP_SYS_ADMIN, _CAP_BPF = 21, 39
_KEPT = 1 << _CAP_DAC_READ_SEARCH | 1 << _CAP_KILL | 1 << _CAP_SYS_PTRACE
_MOST_CAPABILITIES = 64

# <linux/prctl.h>
_PR_SET_KEEPCAPS, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT = 8, 24, 38, 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4


def shed(user: User | None) -> None:
    """Give up what tracing no longer needs, for good; to be called before any other thread is made.

    user: who to become; None keeps the user, and of the capabilities only the harmless ones. What a kernel or a seccomp
    filter refuses is left as it is: tracing goes on.
    """
    permitted = permitted_capabilities()
    with Btf.of_kernel() as btf:
        wanted = _kept(permitted, is_before_6_1=not btf.has_struct("maple_tree"))  # nothing in BTF tells 5.19
    if permitted & 1 << _CAP_SETPCAP:
        for capability in range(_MOST_CAPABILITIES):
            if not wanted >> capability & 1:
                prctl(_PR_CAPBSET_DROP, capability)  # EINVAL above the last one
    prctl(_PR_SET_NO_NEW_PRIVS, 1)
    prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    if user and os.geteuid() == 0:
        prctl(_PR_SET_KEEPCAPS, 1)
        with contextlib.suppress(OSError):
            os.setgroups(user.groups)
            os.setresgid(user.gid, user.gid, user.gid)
            os.setresuid(user.uid, user.uid, user.uid)
        prctl(_PR_SET_KEEPCAPS, 0)
    limit_capabilities(permitted & wanted)


def _kept(permitted: int, *, is_before_6_1: bool) -> int:
    if not is_before_6_1:
        return _KEPT
    return _KEPT | 1 << (_CAP_BPF if permitted >> _CAP_BPF & 1 else _CAP_SYS_ADMIN)
