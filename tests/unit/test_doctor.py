"""`flak doctor` over made-up findings and sessions: what a refusal means, how it is told, the exit status."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import flak
from flak import preflight, trial
from flak.cli.app import run
from flak.cli.console import Console
from flak.cli.doctor import explain, render
from flak.errors import AttachError, FlakError, LoadError, NotPermitted, NotSupported, TargetError
from flak.events import Counters
from flak.preflight import SUDO, Finding

FINE = Finding("kernel", "ok", "Linux 6.18 x86_64")
NO_RIGHTS = Finding("capabilities", "fail", "BPF and PERFMON are missing (uid 1000)", fix=SUDO)
FILTER = Finding("seccomp", "warn", "a filter is set", fix="docker run --security-opt seccomp=unconfined …")
HYBRID = Finding("cgroups", "warn", "hybrid", "groups that exist in version 1 only", "boot with x=1")
NO_PERF = Finding("perf events", "warn", "refused", "page faults", "sysctl x")
LOCKDOWN = Finding("lockdown", "ok", "not visible")
EPERM = NotPermitted("the kernel does not let this process load BPF programs (EPERM)", "run it as root")

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> list[Finding]:
    """What `preflight.host()` finds: the test fills it."""
    findings: list[Finding] = [FINE]
    monkeypatch.setattr(preflight, "host", lambda: list(findings))
    return findings


def refuse(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def load() -> None:
        raise error

    monkeypatch.setattr(trial, "_load_smallest", load)


def by_concern(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.concern: finding for finding in findings}


# what a refusal means


def test_a_refusal_that_the_host_explains_points_there(found: list[Finding], monkeypatch: pytest.MonkeyPatch) -> None:
    found += [NO_RIGHTS, FILTER]
    refuse(monkeypatch, EPERM)
    findings = by_concern(flak.doctor())
    assert findings["trial"].text.endswith("(EPERM): see capabilities")
    assert findings["trial"].fix is None, "the fix stands there"
    assert findings["seccomp"].status == "warn", "it need not be the reason"


def test_what_alone_can_have_refused_is_the_reason(found: list[Finding], monkeypatch: pytest.MonkeyPatch) -> None:
    found += [FILTER, HYBRID]
    refuse(monkeypatch, EPERM)
    findings = by_concern(flak.doctor())
    assert (findings["seccomp"].status, findings["cgroups"].status) == ("fail", "warn")
    assert findings["trial"].text.endswith("see seccomp")


def test_lockdown_is_known_by_the_helpers_it_takes_away(found: list[Finding], monkeypatch: pytest.MonkeyPatch) -> None:
    found.append(LOCKDOWN)
    refuse(monkeypatch, LoadError("the kernel refused FLAK's BPF programs", log="unknown func bpf_probe_read#4"))
    assert by_concern(flak.doctor())["lockdown"] == preflight.LOCKED_DOWN


def test_a_small_memory_lock_is_suspected_last(found: list[Finding], monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    refuse(monkeypatch, EPERM)
    monkeypatch.setattr(resource, "getrlimit", lambda which: (65536, 65536))
    assert "64.0K" in by_concern(flak.doctor())["memory lock"].text
    monkeypatch.setattr(resource, "getrlimit", lambda which: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert "memory lock" not in by_concern(flak.doctor())


@pytest.mark.parametrize(
    ("error", "fix"),
    [
        (NotSupported("this kernel keeps no maple tree", "use Linux 6.1 or newer"), "use Linux 6.1 or newer"),
        (LoadError("refused\n  line 2 of a log", log="lots"), "flak doctor -v shows the log"),
        (AttachError("cannot attach flak_exit"), "look for the reason in dmesg"),
        (FileNotFoundError(2, "No such file or directory", "/proc/self/ns/pid"), "look for the reason in dmesg"),
    ],
)
def test_other_refusals_bring_their_own_fix(
    error: Exception, fix: str, found: list[Finding], monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, error)
    finding = by_concern(flak.doctor())["trial"]
    assert (finding.status, finding.fix) == ("fail", fix)
    assert "\n" not in finding.text


def test_a_log_is_told_to_who_wants_every_detail(found: list[Finding], monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(monkeypatch, LoadError("refused", log="the whole log"))
    told: list[str] = []
    trial.doctor(tell=told.append)
    assert told == ["the whole log"]


# what a success means


def session(**more: Any) -> Any:
    values = {
        "served": {"system calls": "sys_enter and sys_exit", "processes": "sched", "a new concern": "a hook"},
        "missing": {},
        "stats": Counters(),
        "command_status": 0,
        "header": lambda: {"ring_size": 16 << 20},
    }
    return SimpleNamespace(**{**values, **more})


def watched(**more: Any) -> dict[str, Finding]:
    it = trial._Watched.__new__(trial._Watched)
    it.session, it.events = session(**more), []
    return by_concern(list(it.findings()))


def test_what_was_feared_and_has_not_happened_is_no_warning() -> None:
    host = [FINE, NO_RIGHTS, FILTER, HYBRID, NO_PERF]
    settled = by_concern(trial._settled([FINE, NO_RIGHTS], session()))
    assert settled["capabilities"].status == "ok", "a token, or a security module that allows it"
    assert settled["capabilities"].fix is None
    settled = by_concern(trial._settled([FINE, FILTER, HYBRID, NO_PERF], session()))
    assert (settled["seccomp"].status, settled["perf events"].status) == ("ok", "warn")
    settled = by_concern(trial._settled(host, session(served={"page faults": "kprobe"})))
    assert (settled["cgroups"].status, settled["perf events"].status) == ("warn", "ok")


def test_hooks_that_see_nothing_are_a_failure_though_they_attach() -> None:
    findings = watched()
    assert findings["system calls"].status == "fail"
    assert findings["processes"].status == "warn"
    assert findings["a new concern"] == Finding("a new concern", "ok", "a hook")


def test_a_program_of_the_trial_that_fails_is_not_taken_for_a_blind_hook() -> None:
    assert "failed (status 1)" in watched(command_status=1)["system calls"].text


@pytest.mark.parametrize(
    ("missing", "expected"),
    [
        (
            {"page faults": "what is read and written through memory maps (Operation not permitted (EPERM))"},
            ("Operation not permitted (EPERM)", "what is read and written through memory maps"),
        ),
        (
            {"pages per fault": "how many pages a fault maps (page_count) (this kernel has none of the hooks)"},
            ("this kernel has none of the hooks", "how many pages a fault maps (page_count)"),
        ),
        ({"something new": "all of it"}, ("not seen", "all of it")),
    ],
)
def test_a_concern_without_a_hook_says_why_what_is_lost_and_the_fix(
    missing: dict[str, str], expected: tuple[str, str]
) -> None:
    (concern,) = missing
    finding = watched(missing=missing)[concern]
    assert (finding.status, finding.text, finding.hides) == ("warn", *expected)
    assert finding.fix


@pytest.mark.parametrize(
    ("stats", "status", "words"),
    [
        (Counters(matched=5, submitted=5, received=5, written=5), "ok", "16.0M: 5 events, 0 lost"),
        (Counters(matched=5, submitted=3, received=3, written=3, lost={"ring_full": 2}), "warn", "2 lost"),
        (Counters(matched=5), "warn", "5 events"),
        (Counters(recursion_misses=7), "warn", "programs skipped 7 times"),
    ],
)
def test_the_ring_is_judged_by_the_counters(stats: Counters, status: str, words: str) -> None:
    finding = watched(stats=stats)["ring"]
    assert finding.status == status
    assert words in finding.text


# how it is told


TEXT = """\
ok    kernel        Linux 6.18 x86_64
fail  capabilities  BPF and PERFMON are missing (uid 1000)
      fix    sudo $(command -v flak) …
warn  cgroups       hybrid
      hides  groups that exist in version 1 only
      fix    boot with x=1

this host cannot be traced: capabilities: BPF and PERFMON are missing (uid 1000)
"""


def test_findings_are_a_table_with_what_is_hidden_and_the_fix_below() -> None:
    assert render([FINE, NO_RIGHTS, HYBRID], width=80, color=False) == TEXT


@pytest.mark.parametrize("width", [20, 40, 80])
def test_texts_are_wrapped_and_fixes_stay_whole(width: int) -> None:
    long = Finding("page faults", "warn", "many words " * 20, "even more of them " * 20, "a command " * 20)
    text = render([long], width=width, color=False)
    fix = "      fix    " + ("a command " * 20)
    assert fix in text
    assert all(len(line) <= max(width, 40) for line in text.replace(fix, "").splitlines())


def test_in_a_pipe_every_text_is_one_line() -> None:
    long = Finding("page faults", "warn", "many words " * 20, "even more " * 20, "a command")
    assert len(render([long], width=None, color=False).splitlines()) == 5


def test_colours_are_for_the_status_alone() -> None:
    lines = render([FINE, NO_RIGHTS, HYBRID], width=80, color=True).splitlines()
    assert lines[0].startswith("\x1b[32mok\x1b[0m    kernel  ")
    assert lines[1].startswith("\x1b[31mfail\x1b[0m  capabilities  ")
    assert not any("\x1b" in line for line in lines[4:])


def test_nothing_found_can_move_a_cursor() -> None:
    odd = Finding("cgroups", "warn", "version 2, at /a\x1b[2Jb", "\u202e", "mount /\x1b")
    text = render([odd], width=80, color=False)
    assert text.replace("\n", "").isprintable()


@pytest.mark.parametrize(
    ("findings", "verdict"),
    [
        ([FINE], "this host can be traced"),
        ([FINE, HYBRID], "this host can be traced; 1 warning"),
        ([HYBRID, NO_PERF], "this host can be traced; 2 warnings"),
    ],
)
def test_the_verdict_counts_warnings(findings: list[Finding], verdict: str) -> None:
    assert render(findings, width=80, color=False).splitlines()[-1] == verdict


@pytest.mark.parametrize(("findings", "status"), [([FINE, HYBRID], 0), ([FINE, NO_RIGHTS], 1)])
def test_the_exit_status_is_1_where_tracing_cannot_work(
    findings: list[Finding], status: int, monkeypatch: pytest.MonkeyPatch, capfd: Captured
) -> None:
    monkeypatch.setattr(trial, "doctor", lambda tell: findings)
    assert run(["doctor"]) == status
    assert run(["doctor", "--json"]) == status
    text, _, line = capfd.readouterr().out.partition("{")
    told = json.loads("{" + line)
    assert text == render(findings, width=None, color=False)
    assert told["can_trace"] is (status == 0)
    assert [Finding(**finding) for finding in told["findings"]] == findings
    assert (told["flak"], told["kernel"], told["machine"]) == (flak.__version__, os.uname().release, os.uname().machine)


@pytest.mark.parametrize(
    ("program", "words"),
    [("/home/me/venv/bin/flak", "/home/me/venv/bin/flak"), ("/mnt/flak.pyz", f"{sys.executable} /mnt/flak.pyz")],
)
def test_the_fix_names_this_very_flak(
    program: str, words: str, monkeypatch: pytest.MonkeyPatch, capfd: Captured
) -> None:
    monkeypatch.setattr(trial, "doctor", lambda tell: [NO_RIGHTS])
    monkeypatch.setattr(sys, "argv", [program])
    run(["doctor"])
    assert f"fix    sudo {words} …" in capfd.readouterr().out


def test_options_are_checked(capfd: Captured) -> None:
    assert run(["doctor", "--color", "pink"]) == 2
    assert "--color" in capfd.readouterr().err


# why a trace did not start


def test_certain_reasons_come_alone_and_possible_ones_where_there_is_no_other(
    found: list[Finding], capfd: Captured
) -> None:
    found += [FILTER, HYBRID]
    assert explain(Console())
    assert capfd.readouterr().err == f"flak: seccomp: a filter is set; fix: {FILTER.fix}\n"
    found.append(NO_RIGHTS)
    assert explain(Console())
    assert capfd.readouterr().err == f"flak: capabilities: {NO_RIGHTS.text}; fix: {SUDO}\n"


def test_a_host_without_fault_is_no_explanation(found: list[Finding], capfd: Captured) -> None:
    found.append(HYBRID)
    assert not explain(Console())
    assert capfd.readouterr().err == ""


def start_fails(monkeypatch: pytest.MonkeyPatch, error: FlakError) -> None:
    def begin(*arguments: Any, **options: Any) -> Any:
        raise error

    monkeypatch.setattr("flak.cli.replay.dump", begin)


@pytest.mark.parametrize("kind", [NotPermitted, NotSupported, LoadError, AttachError])
def test_a_trace_that_cannot_start_says_what_this_host_lacks_instead_of_a_bare_errno(
    kind: type[FlakError], found: list[Finding], monkeypatch: pytest.MonkeyPatch, capfd: Captured
) -> None:
    found.append(NO_RIGHTS)
    start_fails(monkeypatch, kind("EPERM", "run it as root"))
    run(["dump", "x"])
    assert capfd.readouterr().err == f"flak: EPERM\nflak: capabilities: {NO_RIGHTS.text}; fix: {SUDO}\n"


def test_what_the_error_says_is_not_said_again_as_a_finding(
    found: list[Finding], monkeypatch: pytest.MonkeyPatch, capfd: Captured
) -> None:
    text = "cannot load libbpf: x.so: file too short"
    found += [Finding("libbpf", "fail", text, fix="correct FLAK_LIBBPF"), NO_RIGHTS]
    monkeypatch.setattr(sys, "argv", ["/mnt/flak.pyz"])
    start_fails(monkeypatch, NotSupported(text, "correct FLAK_LIBBPF"))
    run(["dump", "x"])
    assert capfd.readouterr().err.splitlines() == [
        f"flak: {text}",
        "flak: hint: correct FLAK_LIBBPF",
        f"flak: capabilities: {NO_RIGHTS.text}; fix: sudo {sys.executable} /mnt/flak.pyz …",
    ]


def test_the_cause_counts_where_it_was_wrapped(
    found: list[Finding], monkeypatch: pytest.MonkeyPatch, capfd: Captured
) -> None:
    found.append(NO_RIGHTS)
    error = TargetError("EPERM", "run it as root", 125)
    error.__cause__ = NotPermitted("EPERM")
    start_fails(monkeypatch, error)
    assert run(["dump", "x"]) == 125
    assert "flak: capabilities: " in capfd.readouterr().err


def test_the_command_to_type_stands_once(
    found: list[Finding], monkeypatch: pytest.MonkeyPatch, capfd: Captured
) -> None:
    found.append(NO_RIGHTS)
    monkeypatch.setattr(sys, "argv", ["/venv/bin/flak"])
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    start_fails(monkeypatch, NotPermitted("EPERM", "run it as root"))
    run(["dump", "x"])
    assert capfd.readouterr().err.splitlines() == [
        "flak: EPERM",
        f"flak: capabilities: {NO_RIGHTS.text}",
        "flak: hint: sudo /venv/bin/flak dump x",
    ]


def test_without_an_explanation_the_hint_of_the_error_stays(
    found: list[Finding], monkeypatch: pytest.MonkeyPatch, capfd: Captured
) -> None:
    start_fails(monkeypatch, NotSupported("no maple tree", "use Linux 6.1 or newer"))
    run(["dump", "x"])
    assert capfd.readouterr().err == "flak: no maple tree\nflak: hint: use Linux 6.1 or newer\n"


def test_other_errors_are_told_as_ever(found: list[Finding], monkeypatch: pytest.MonkeyPatch, capfd: Captured) -> None:
    found.append(NO_RIGHTS)
    start_fails(monkeypatch, TargetError("no process 4242", "list them"))
    run(["dump", "x"])
    assert capfd.readouterr().err == "flak: no process 4242\nflak: hint: list them\n"


# the document


def test_every_concern_is_explained() -> None:
    document = (Path(__file__).parents[2] / "docs/doctor.md").read_text()
    explained = set(re.findall(r"^\| `([a-zA-Z ]+)` \|", document, re.MULTILINE)) - {"can_trace", "findings"}
    source = "".join(Path(module.__file__).read_text() for module in (preflight, trial))
    named = set(re.findall(r'Finding\(\s*"([a-zA-Z ]+)"', source)) | set(preflight._CHECKS)
    assert named | {"pages per fault"} == explained
