"""Containers of every runtime on made-up machines: what their directories and files say, and what hostile ones do."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import builders
import pytest
from fake_host import FakeHost
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flak import cgroups
from flak.cgroups import Cgroup
from flak.containers import Container, Names, NotRunning, find, known
from flak.containers.ids import innermost, is_pod, mark_of
from flak.containers.state import State
from flak.errors import FlakError, NotSupported, TargetError, UsageError
from flak.events import escape
from flak.selection import Selection
from flak.session import Session
from flak.wire import container_record

A, B, C = ("a1b2" * 16, "b2c3" * 16, "c3d4" * 16)
UID = "0f5b9a6c-1d2e-4f30-8a9b-0c1d2e3f4a5b"
SLICE = f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UID.replace('-', '_')}.slice"
PLAIN = f"/kubepods/burstable/pod{UID}"

Setup = Callable[[FakeHost, str], str]
"""Puts a container of this id on a machine; its cgroup from the hierarchy's root."""


@pytest.fixture
def fake(tmp_path: Path) -> FakeHost:
    """A machine with the version 2 hierarchy in the usual place."""
    fake = FakeHost(tmp_path)
    fake.mount()
    return fake


@pytest.fixture
def hybrid(tmp_path: Path) -> FakeHost:
    """A machine whose controllers are in version 1 hierarchies; processes are in the root of version 2."""
    fake = FakeHost(tmp_path)
    fake.mount_v1("/sys/fs/cgroup/memory", "memory")
    fake.mount("/sys/fs/cgroup/unified")
    return fake


def podman_lists(fake: FakeHost, *containers: tuple[str, str], file: str = "containers.json", root: str = "") -> None:
    """Podman's list of (id, name), as version 4 writes it."""
    listed = [
        {
            "id": container_id,
            "names": [name],
            "image": "",
            "metadata": json.dumps({"image-name": "", "name": name, "created-at": 1795372497}),
            "flags": {"MountLabel": "", "Volatile": True},
        }
        for container_id, name in containers
    ]
    fake.json(f"{root or '/var/lib/containers/storage'}/overlay-containers/{file}", listed)


def podman(fake: FakeHost, container_id: str, cgroup: str = "/machine.slice/libpod-{}.scope", name: str = "web") -> str:
    podman_lists(fake, (container_id, name))
    return cgroup.format(container_id)


def docker(
    fake: FakeHost, container_id: str, cgroup: str = "/system.slice/docker-{}.scope", name: str = "/web",
    root: str = "/var/lib/docker",
) -> str:  # fmt: skip
    fake.json(f"{root}/containers/{container_id}/config.v2.json", {"ID": container_id, "Name": name, "State": {}})
    return cgroup.format(container_id)


def containerd(
    fake: FakeHost, container_id: str, cgroup: str = SLICE + "/cri-containerd-{}.scope", *, kind: str = "container",
    name: str | None = "nginx", pod: str = "web-0", namespace: str = "shop", run: str = "/run/containerd",
) -> str:  # fmt: skip
    annotations = {
        "io.kubernetes.cri.container-type": kind,
        "io.kubernetes.cri.sandbox-name": pod,
        "io.kubernetes.cri.sandbox-namespace": namespace,
        **({"io.kubernetes.cri.container-name": name} if name else {}),
    }
    config = {"annotations": annotations, "linux": {"cgroupsPath": "x:y:z"}}
    fake.json(f"{run}/io.containerd.runtime.v2.task/k8s.io/{container_id}/config.json", config)
    return cgroup.format(container_id)


def nerdctl(fake: FakeHost, container_id: str, cgroup: str = "/system.slice/nerdctl-{}.scope") -> str:
    config = {"annotations": {"nerdctl/name": "web"}}
    fake.json(f"/run/containerd/io.containerd.runtime.v2.task/default/{container_id}/config.json", config)
    return cgroup.format(container_id)


def crio(fake: FakeHost, container_id: str, cgroup: str = SLICE + "/crio-{}.scope", kind: str = "container") -> str:
    annotations = {
        "io.container.manager": "cri-o",
        "io.kubernetes.container.name": "POD" if kind == "sandbox" else "nginx",
        "io.kubernetes.pod.name": "web-0",
        "io.kubernetes.pod.namespace": "shop",
        "io.kubernetes.cri-o.ContainerType": kind,
    }
    fake.json(
        f"/run/containers/storage/overlay-containers/{container_id}/userdata/config.json", {"annotations": annotations}
    )
    return cgroup.format(container_id)


def kubelet(fake: FakeHost, container_id: str) -> str:
    link = fake.path(f"/var/log/containers/web-0_shop_nginx-{container_id}.log")
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to("/var/log/pods/nowhere")
    return f"{PLAIN}/{container_id}"


def podman_rootless(fake: FakeHost, container_id: str) -> str:
    podman_lists(fake, (container_id, "web"), root="/home/ann/.local/share/containers/storage")
    return f"/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{container_id}.scope"


def podman_volatile(fake: FakeHost, container_id: str) -> str:
    podman_lists(fake, (container_id, "web"), file="volatile-containers.json")
    return f"/machine.slice/libpod-{container_id}.scope"


def podman_elsewhere(fake: FakeHost, container_id: str) -> str:
    fake.write("/etc/containers/storage.conf", '[storage]\ngraphroot = "/data/c"\n')
    podman_lists(fake, (container_id, "web"), root="/data/c")
    return f"/machine.slice/libpod-{container_id}.scope"


def docker_elsewhere(fake: FakeHost, container_id: str) -> str:
    fake.json("/etc/docker/daemon.json", {"data-root": "/data/d"})
    return docker(fake, container_id, root="/data/d")


def just_a_directory(fake: FakeHost, container_id: str) -> str:
    return f"/machine.slice/libpod-{container_id}.scope"


IN_POD = "shop/web-0/nginx"
MIXED = "/system.slice/containerd.service/kubepods-burstable-pod1.slice:cri-containerd:{}"
RUNTIMES: dict[str, tuple[Setup, str | None, str]] = {
    # name of the case: what sets it up, the runtime it is, the name that is shown
    "podman, systemd": (podman, "podman", "web"),
    "podman, cgroupfs": (partial(podman, cgroup="/libpod_parent/libpod-{}"), "podman", "web"),
    "podman, in a pod": (partial(podman, cgroup=f"/libpod_parent/{B}/libpod-{{}}"), "podman", "web"),
    "podman, split": (partial(podman, cgroup="/system.slice/web.service/libpod-payload-{}"), "podman", "web"),
    "podman, rootless": (podman_rootless, "podman", "web"),
    "podman, --rm": (podman_volatile, "podman", "web"),
    "podman, storage elsewhere": (podman_elsewhere, "podman", "web"),
    "docker, systemd": (docker, "docker", "web"),
    "docker, cgroupfs": (partial(docker, cgroup="/docker/{}"), "docker", "web"),
    "docker, --cgroup-parent": (partial(docker, cgroup="/mine/{}"), "docker", "web"),
    "docker, data-root": (docker_elsewhere, "docker", "web"),
    "docker, snap": (partial(docker, root="/var/snap/docker/common/var-lib-docker"), "docker", "web"),
    "docker, rootless": (partial(docker, root="/home/ann/.local/share/docker"), "docker", "web"),
    "docker, Kubernetes": (partial(docker, name=f"/k8s_nginx_web-0_shop_{UID}_3"), "docker", IN_POD),
    "containerd, systemd": (containerd, "containerd", IN_POD),
    "containerd, cgroupfs": (partial(containerd, cgroup=PLAIN + "/{}"), "containerd", IN_POD),
    "containerd, mixed drivers": (partial(containerd, cgroup=MIXED), "containerd", IN_POD),
    "containerd, sandbox": (partial(containerd, kind="sandbox", name=None), "containerd", "shop/web-0/pause"),
    "k3s": (partial(containerd, run="/run/k3s/containerd"), "containerd", IN_POD),
    "microk8s": (partial(containerd, run="/var/snap/microk8s/common/run/containerd"), "containerd", IN_POD),
    "nerdctl, systemd": (nerdctl, "containerd", "web"),
    "nerdctl, cgroupfs": (partial(nerdctl, cgroup="/default/{}"), "containerd", "web"),
    "nerdctl, own namespace": (partial(nerdctl, cgroup="/mine/{}"), "containerd", "web"),
    "cri-o": (crio, "cri-o", IN_POD),
    "cri-o, sandbox": (partial(crio, kind="sandbox"), "cri-o", "shop/web-0/pause"),
    "kubelet's links only": (kubelet, None, IN_POD),
    "nothing but a directory": (just_a_directory, "podman", A[:12]),
}


@pytest.fixture(params=RUNTIMES.values(), ids=RUNTIMES.keys())
def runtime(request: pytest.FixtureRequest) -> tuple[Setup, str | None, str]:
    return request.param  # type: ignore[no-any-return]


# every runtime


def test_a_container_of_every_runtime_is_known_and_found(
    fake: FakeHost, runtime: tuple[Setup, str | None, str]
) -> None:
    setup, name_of_runtime, shown = runtime
    path = setup(fake, A)
    cgroup = Cgroup(fake.cgroup(path), fake.top / path[1:])
    (container,) = [c for c in known(host=fake.host) if c.container_id == A]
    assert (container.runtime, container.shown, container.cgroup) == (name_of_runtime, shown, cgroup.path)
    for text in (A, A[:12], A[:4], shown):
        assert find(text, host=fake.host) == [cgroup]


def test_a_cgroup_of_every_runtime_is_named(fake: FakeHost, runtime: tuple[Setup, str | None, str]) -> None:
    setup, _, shown = runtime
    path = setup(fake, A)
    number, below = fake.cgroup(path), fake.cgroup(f"{path}/container")
    fake.process(23, f"{path}/container")
    names = Names(host=fake.host)
    assert names.name_of(below, 23) == shown, "by its process"
    assert names.name_of(number, 99) == shown, "by its id"


def test_only_containers_that_run_are_found(fake: FakeHost) -> None:
    podman(fake, A)
    docker(fake, B, name="/db")
    assert [(c.name, c.cgroup) for c in known(host=fake.host)] == [("web", None), ("db", None)]
    for text in ("web", "db", A[:12]):
        with pytest.raises(NotRunning, match="does not run"):
            find(text, host=fake.host)


# what is no container


@pytest.mark.parametrize(
    "directory",
    [
        f"libpod-conmon-{A}.scope", f"crio-conmon-{A}.scope", "conmon", A[:63], f"x{A}", f"{A}0",
        f"libpod-{A[:63]}.scope", f"libpod-{A}.service", A.upper(), "init.scope", "",
    ],
)  # fmt: skip
def test_monitors_and_others_are_no_containers(directory: str) -> None:
    assert mark_of(directory, "machine.slice", lambda _: False) is None


def test_a_pod_of_podman_is_no_container(fake: FakeHost) -> None:
    fake.cgroup(f"/libpod_parent/{B}/libpod-{A}")
    fake.cgroup(f"/libpod_parent/libpod-conmon-{C}.scope")
    assert [c.container_id for c in known(host=fake.host)] == [A]


@pytest.mark.parametrize(
    ("directory", "answer"),
    [
        (f"pod{UID}", True),
        (f"kubepods-burstable-pod{UID.replace('-', '_')}.slice", True),
        ("kubepods-pod" + "0" * 32 + ".slice", True),
        ("pod", False),
        ("podman.slice", False),
        ("kubepods.slice", False),
        (f"machine-libpod_pod_{A}.slice", False),
    ],
)
def test_the_cgroup_of_a_pod_is_told_by_its_uid(directory: str, answer: bool) -> None:
    assert is_pod(directory) is answer


def test_the_inner_one_of_nested_containers_has_the_name() -> None:
    parts = ["docker", A, "docker", B, "init"]
    assert innermost(parts, lambda _: False) == (B, "docker")
    assert innermost(parts[:3], lambda _: False) == (A, "docker")


def test_the_outermost_directory_of_an_id_is_selected(fake: FakeHost) -> None:
    docker(fake, A, name="/outer")
    outer = fake.cgroup(f"/docker/{A}")
    inner = fake.cgroup(f"/docker/{A}/docker/{B}")
    fake.cgroup(f"/docker/{A}/init/docker/{A}")
    assert [c.cgroup_id for c in find("outer", host=fake.host)] == [outer]
    assert [c.cgroup_id for c in find(B, host=fake.host)] == [inner]
    names = Names(host=fake.host)
    assert (names.name_of(outer, 0), names.name_of(inner, 0)) == ("outer", B[:12])


# choosing


def test_an_exact_name_comes_before_the_beginning_of_an_id(fake: FakeHost) -> None:
    podman_lists(fake, (A, "cafe"), (B, B[:6]), ("cafe" * 16, "other"))
    ids = {i: fake.cgroup(f"/m/libpod-{i}.scope") for i in (A, B, "cafe" * 16)}
    assert [c.cgroup_id for c in find("cafe", host=fake.host)] == [ids[A]]
    assert [c.cgroup_id for c in find("cafeca", host=fake.host)] == [ids["cafe" * 16]]


def test_a_name_that_two_have_is_refused_with_both(fake: FakeHost) -> None:
    podman(fake, A)
    docker(fake, B)
    fake.cgroup(f"/machine.slice/libpod-{A}.scope")
    fake.cgroup(f"/docker/{B}")
    with pytest.raises(TargetError, match=f"{A[:12]} web, {B[:12]} web") as error:
        find("web", host=fake.host)
    assert not isinstance(error.value, NotRunning)
    assert error.value.hint == "choose one by its id"


def test_only_one_of_a_name_that_runs_is_no_ambiguity(fake: FakeHost) -> None:
    podman(fake, A)
    docker(fake, B)
    number = fake.cgroup(f"/docker/{B}")
    assert [c.cgroup_id for c in find("web", host=fake.host)] == [number]


def test_an_ambiguous_beginning_lists_at_most_five(fake: FakeHost) -> None:
    for number in range(7):
        fake.cgroup(f"/m/libpod-abcd{number}{'0' * 59}.scope")
    with pytest.raises(TargetError, match=r": abcd00000000 \S+, .* and 2 more$") as error:
        find("abcd", host=fake.host)
    assert error.value.message.count("abcd") == 1 + 5 * 2, "what was asked for; five by id and name, which is the id"


@pytest.mark.parametrize("text", [A[:3], A[:8].upper(), "nosuch", A + "0", "*", "web\n", "\ud800"])
def test_what_nothing_is_called_does_not_run_yet(fake: FakeHost, text: str) -> None:
    podman_lists(fake, (A, "web"), (B, "db"))
    fake.cgroup(f"/machine.slice/libpod-{A}.scope")
    with pytest.raises(NotRunning, match="no container") as error:
        find(text, host=fake.host)
    assert error.value.hint == "running now: web"
    assert error.value.message.isprintable()


def test_the_hint_names_eight_at_most(fake: FakeHost) -> None:
    ids = [f"{number:064x}" for number in range(11)]
    podman_lists(fake, *((i, f"name{int(i, 16):02}") for i in ids))
    for container_id in ids:
        fake.cgroup(f"/m/libpod-{container_id}")
    with pytest.raises(NotRunning) as error:
        find("web", host=fake.host)
    assert (error.value.hint or "").endswith("name06, name07 and 3 more")


def test_without_containers_the_hint_says_so(fake: FakeHost) -> None:
    with pytest.raises(NotRunning) as error:
        find("web", host=fake.host)
    assert error.value.hint == "no container runs here that FLAK could see"


@pytest.mark.parametrize("text", ["", "pod/", "pod//", "pod//x", "pod/a/b/c", "pod/a/"])
def test_what_can_be_no_name_is_a_usage_error(fake: FakeHost, text: str) -> None:
    with pytest.raises(UsageError):
        find(text, host=fake.host)


# pods


@pytest.mark.parametrize("text", ["pod/web-0", "pod/shop/web-0"])
@pytest.mark.parametrize("parent", [SLICE, PLAIN])
def test_a_pod_is_its_own_cgroup(fake: FakeHost, text: str, parent: str) -> None:
    fake.cgroup(containerd(fake, A, parent + "/{}"))
    fake.cgroup(containerd(fake, B, parent + "/{}", kind="sandbox", name=None))
    containerd(fake, C, parent + "/{}", name="ended")
    assert find(text, host=fake.host) == [Cgroup(fake.cgroup(parent), fake.top / parent[1:])]


def test_a_pod_without_a_cgroup_of_its_own_is_its_containers(fake: FakeHost) -> None:
    ids = [fake.cgroup(containerd(fake, i, "/somewhere/cri-containerd-{}.scope")) for i in (A, B)]
    assert sorted(c.cgroup_id for c in find("pod/web-0", host=fake.host)) == sorted(ids)


def test_two_pods_of_one_name_are_both_meant(fake: FakeHost) -> None:
    """A stateful set's old pod ends while its new one starts."""
    other = f"/kubepods/pod{UID.replace('0', '1')}"
    fake.cgroup(containerd(fake, A, PLAIN + "/{}"))
    fake.cgroup(containerd(fake, B, other + "/{}"))
    ids = {fake.cgroup(PLAIN), fake.cgroup(other)}
    assert {c.cgroup_id for c in find("pod/web-0", host=fake.host)} == ids


def test_a_pod_of_several_namespaces_needs_one(fake: FakeHost) -> None:
    fake.cgroup(containerd(fake, A))
    fake.cgroup(containerd(fake, B, PLAIN + "/{}", namespace="test"))
    with pytest.raises(TargetError, match="several namespaces: shop, test"):
        find("pod/web-0", host=fake.host)
    assert len(find("pod/test/web-0", host=fake.host)) == 1


def test_a_pod_that_is_not_there_may_come(fake: FakeHost) -> None:
    fake.cgroup(containerd(fake, A))
    for text in ("pod/web", "pod/other/web-0", "pod/nginx"):
        with pytest.raises(NotRunning, match="no pod") as error:
            find(text, host=fake.host)
        assert error.value.hint == "running now: pod/shop/web-0"


def test_a_container_name_that_several_pods_have_needs_more(fake: FakeHost) -> None:
    fake.cgroup(containerd(fake, A))
    number = fake.cgroup(containerd(fake, B, pod="web-1"))
    with pytest.raises(TargetError, match=r"shop/web-0/nginx.*shop/web-1/nginx"):
        find("nginx", host=fake.host)
    assert [c.cgroup_id for c in find("shop/web-1/nginx", host=fake.host)] == [number]


# where no directory says so: the runtime's state and the process


def runc_state(fake: FakeHost, container_id: str, pid: int, path: str | None, folder: str = "/run/runc") -> None:
    paths = {"memory": f"/sys/fs/cgroup/memory/docker/{container_id}"} | ({"": path} if path else {})
    state = {"id": container_id, "init_process_pid": pid, "init_process_start": 4711, "cgroup_paths": paths}
    fake.json(f"{folder}/{container_id}/state.json", state)


@pytest.mark.parametrize(
    "folder", ["/run/runc", "/run/docker/runtime-runc/moby", "/run/containerd/runc/moby", "/run/containerd/runc/k8s.io"]
)
def test_runc_tells_where_a_container_is(fake: FakeHost, folder: str) -> None:
    docker(fake, A)
    number = fake.cgroup("/mine/web")
    fake.process(23, "/mine/web/init.scope")
    fake.cgroup("/mine/web/init.scope")
    runc_state(fake, A, 23, "/sys/fs/cgroup/mine/web", folder)
    assert find("web", host=fake.host) == [Cgroup(number, fake.top / "mine/web")]


def test_crun_tells_where_a_container_is(fake: FakeHost) -> None:
    podman(fake, A)
    number = fake.cgroup("/mine/web")
    fake.cgroup("/mine/web/container")
    fake.process(23, "/mine/web/container")
    fake.json(f"/run/crun/{A}/status", {"pid": 23, "process-start-time": 4711, "cgroup-path": "/mine/web"})
    assert [c.cgroup_id for c in find("web", host=fake.host)] == [number]


def test_a_bundle_tells_where_a_container_is(fake: FakeHost) -> None:
    podman(fake, A)
    number = fake.cgroup("/mine/web")
    fake.cgroup("/mine/web/container")
    fake.process(23, "/mine/web/container")
    fake.json(f"/run/crun/{A}/status", {"pid": 23, "cgroup-path": ""})
    bundle = f"/var/lib/containers/storage/overlay-containers/{A}/userdata/config.json"
    fake.json(bundle, {"linux": {"cgroupsPath": "/mine/web"}})
    assert [c.cgroup_id for c in find("web", host=fake.host)] == [number]


def test_a_process_tells_where_a_container_is(fake: FakeHost) -> None:
    docker(fake, A)
    number = fake.cgroup("/mine")
    fake.cgroup("/shims")
    fake.process(23, "/mine", parent=22)
    fake.process(22, "/shims")
    runc_state(fake, A, 23, None)
    assert [c.cgroup_id for c in find("web", host=fake.host)] == [number]


@pytest.mark.parametrize("noted", ["/sys/fs/cgroup", "/", "/elsewhere", "/nowhere", "/sys/fs/cgroup/../..", "23", "x"])
def test_a_cgroup_that_the_process_is_not_in_alone_is_not_believed(fake: FakeHost, noted: str) -> None:
    """The shim is in it too: selecting it would trace more than the container."""
    docker(fake, A)
    fake.cgroup("/elsewhere")
    fake.cgroup("/system.slice/containerd.service")
    fake.process(23, "/system.slice/containerd.service", parent=22)
    fake.process(22, "/system.slice/containerd.service")
    runc_state(fake, A, 23, noted)
    with pytest.raises(TargetError, match=r"web has no cgroup of its own.*0::/system\.slice/c") as error:
        find("web", host=fake.host)
    assert not isinstance(error.value, NotRunning)
    assert error.value.hint == "choose the process instead: --pid 23"


@pytest.mark.parametrize("has_directory", [False, True])
def test_a_container_in_version_1_is_refused_with_what_to_do(hybrid: FakeHost, has_directory: bool) -> None:
    docker(hybrid, A)
    hybrid.path(f"/sys/fs/cgroup/memory/docker/{A}").mkdir(parents=True)
    if has_directory:
        hybrid.cgroup(f"/docker/{A}")
    hybrid.process(23, "/", parent=1)
    hybrid.process(1, "/")
    runc_state(hybrid, A, 23, None)
    with pytest.raises(TargetError, match=r"web has no cgroup of its own .*: its processes are in 0::/$") as error:
        find("web", host=hybrid.host)
    assert not isinstance(error.value, NotRunning)
    assert error.value.hint == "choose the process instead: --pid 23"


def test_a_kubernetes_container_in_version_1_is_refused_by_its_name(hybrid: FakeHost) -> None:
    containerd(hybrid, A)
    hybrid.process(23, "/")
    runc_state(hybrid, A, 23, None, "/run/containerd/runc/k8s.io")
    for text in ("nginx", "pod/web-0"):
        with pytest.raises(TargetError, match="shop/web-0/nginx has no cgroup of its own"):
            find(text, host=hybrid.host)


def test_a_hybrid_host_with_a_directory_in_version_2_is_fine(hybrid: FakeHost) -> None:
    path = podman(hybrid, A, "/libpod_parent/libpod-{}")
    number = hybrid.cgroup(path)
    hybrid.process(23, path)
    runc_state(hybrid, A, 23, f"/sys/fs/cgroup/unified{path}")
    assert [c.cgroup_id for c in find("web", host=hybrid.host)] == [number]


def test_a_machine_with_version_1_only_says_so(tmp_path: Path) -> None:
    fake = FakeHost(tmp_path)
    fake.mount_v1("/sys/fs/cgroup/memory", "memory")
    docker(fake, A)
    fake.process(23, None)
    runc_state(fake, A, 23, None)
    with pytest.raises(TargetError, match=r"web has no cgroup of its own.*in no version 2 cgroup") as error:
        find("web", host=fake.host)
    assert error.value.hint == "choose the process instead: --pid 23"
    with pytest.raises(NotSupported, match="only version 1"):
        find("other", host=fake.host)
    assert Names(host=fake.host).name_of(1, 23) is None


def test_a_number_that_another_process_has_now_is_no_container(fake: FakeHost) -> None:
    docker(fake, A)
    fake.cgroup("/other")
    fake.process(23, "/other", start=4712)
    runc_state(fake, A, 23, "/sys/fs/cgroup/other")
    with pytest.raises(NotRunning):
        find("web", host=fake.host)


def test_rootless_state_may_not_point_anywhere(fake: FakeHost) -> None:
    """Any user can write it: it must not make a system service pass for a container."""
    podman_lists(fake, (A, "web"), root="/home/eve/.local/share/containers/storage")
    fake.cgroup("/system.slice/sshd.service")
    fake.process(23, "/system.slice/sshd.service")
    fake.process(1, "/init.scope")
    fake.cgroup("/init.scope")
    status = {"pid": 23, "process-start-time": 4711, "cgroup-path": "/system.slice/sshd.service"}
    fake.json(f"/run/user/1000/crun/{A}/status", status)
    with pytest.raises(TargetError, match="no cgroup of its own"):
        find("web", host=fake.host)


# hostile state


def test_a_home_cannot_rename_containers_of_the_system_or_claim_pods(fake: FakeHost) -> None:
    home = "/home/eve/.local/share/containers/storage"
    podman_lists(fake, (A, "bank"))
    podman_lists(fake, (A, "forged"), (B, "k8s_nginx_web-0_shop_u_0"), root=home)
    docker(fake, C, name="/k8s_nginx_web-0_shop_u_0", root="/home/eve/.local/share/docker")
    for container_id in (A, B, C):
        fake.cgroup(f"/m/libpod-{container_id}")
    assert [(c.name, c.pod) for c in known(host=fake.host)] == [
        ("bank", None), ("k8s_nginx_web-0_shop_u_0", None), ("k8s_nginx_web-0_shop_u_0", None),
    ]  # fmt: skip
    with pytest.raises(NotRunning):
        find("pod/web-0", host=fake.host)


STATE_FILES = [
    "/var/lib/containers/storage/overlay-containers/containers.json",
    "/etc/containers/storage.conf",
    "/etc/docker/daemon.json",
    f"/var/lib/docker/containers/{A}/config.v2.json",
    f"/run/containerd/io.containerd.runtime.v2.task/k8s.io/{A}/config.json",
    f"/run/containers/storage/overlay-containers/{A}/userdata/config.json",
    f"/run/runc/{A}/state.json",
    f"/run/crun/{A}/status",
]


def usable(fake: FakeHost) -> None:
    """A container that is found whatever the state says."""
    number = fake.cgroup(f"/m/libpod-{A}")
    assert [c.cgroup_id for c in find(A, host=fake.host)] == [number]
    assert Names(host=fake.host).name_of(number, 0)
    assert len(known(host=fake.host)) >= 1


@pytest.mark.parametrize("file", STATE_FILES)
@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"\xff\xfe", b"null", b"[]", b"{}", b'"x"', b"[" * 100_000, b'{"a":' * 100_000, b"9" * 100_000,
        b'[{"id": "%s", "names": "x", "metadata": 7}, 3, null, {"id": 5}]' % A.encode(), b"\0" * 100,
        b'{"Name": {"a": 1}, "annotations": [1], "linux": 3, "cgroup_paths": 3, "init_process_pid": "1"}',
        b'{"annotations": {"io.kubernetes.cri.sandbox-name": 3}, "linux": {"cgroupsPath": "/a\\u0000b"}}',
        b'{"init_process_pid": -1, "pid": 1e400, "init_process_start": true, "cgroup_paths": {"": "/\\ud800"}}',
        b'{"pid": 123456789012345678901234567890, "data-root": "/\\u0000", "cgroup-path": "/../../.."}',
        b'[storage]\ngraphroot = "/a\\u0000b"\nrunroot = 3\n', b'graphroot = "relative"',
    ],
    ids=lambda content: repr(content[:24]),
)  # fmt: skip
def test_damaged_state_is_skipped(fake: FakeHost, file: str, content: bytes) -> None:
    fake.write(file, content)
    usable(fake)


@pytest.mark.parametrize("file", STATE_FILES)
def test_what_is_no_readable_file_is_skipped(fake: FakeHost, file: str) -> None:
    path = fake.path(file)
    path.parent.mkdir(parents=True)
    for make in (
        lambda: os.mkfifo(path),
        lambda: path.symlink_to(path),
        lambda: path.symlink_to("/dev/zero"),
        lambda: path.mkdir(),
        lambda: path.write_bytes(b"[" + b" " * (1 << 20) + b"]"),
    ):
        make()
        usable(fake)
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()


@pytest.mark.parametrize(
    "folder",
    ["/home/eve/.local/share/containers/storage", "/var/lib/docker/containers", "/var/log/containers", "/run/runc",
     "/home/eve", "/run/user/1000", "/run/containerd/io.containerd.runtime.v2.task/k8s.io"],
)  # fmt: skip
def test_loops_of_symlinks_are_skipped(fake: FakeHost, folder: str) -> None:
    path = fake.path(folder)
    path.parent.mkdir(parents=True)
    path.symlink_to(path)
    usable(fake)
    path.unlink()
    path.symlink_to(fake.folder)
    usable(fake)


def test_a_list_that_is_a_symlink_is_not_followed(fake: FakeHost) -> None:
    """To open what a user's symlink leads to has effects of its own, as with a watchdog."""
    podman_lists(fake, (A, "web"), root="/elsewhere")
    listed = fake.path("/var/lib/containers/storage/overlay-containers/containers.json")
    listed.parent.mkdir(parents=True)
    listed.symlink_to(fake.path("/elsewhere/overlay-containers/containers.json"))
    assert known(host=fake.host) == []


def test_a_configuration_that_is_a_symlink_is_followed(fake: FakeHost) -> None:
    podman_elsewhere(fake, A)
    config = fake.path("/etc/containers/storage.conf")
    config.rename(config.with_suffix(".real"))
    config.symlink_to("storage.real")
    assert [c.name for c in known(host=fake.host)] == ["web"]


@pytest.mark.parametrize("file", STATE_FILES)
def test_a_pipe_that_is_held_open_is_not_waited_for(fake: FakeHost, file: str) -> None:
    path = fake.path(file)
    path.parent.mkdir(parents=True)
    os.mkfifo(path)
    writer = os.open(path, os.O_RDWR)
    usable(fake)
    os.close(writer)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_state_that_may_not_be_read_is_skipped(fake: FakeHost) -> None:
    podman(fake, A)
    for folder in ("/var/lib/containers", "/run"):
        fake.path(folder).mkdir(parents=True, exist_ok=True)
        fake.path(folder).chmod(0)
    usable(fake)
    assert [c.shown for c in known(host=fake.host)] == [A[:12]]
    for folder in ("/var/lib/containers", "/run"):
        fake.path(folder).chmod(0o755)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("\x1b[2Jweb", r"\x1b[2Jweb"),
        ("web\nforged", r"web\nforged"),
        ("\u202ebew", r"\u202ebew"),
        ("\ud800", r"\xed\xa0\x80"),
        ("x" * 256, A[:12]),
        ("", A[:12]),
        ("wéb", "wéb"),
    ],
)
def test_names_are_printable_wherever_they_come_from(fake: FakeHost, name: str, shown: str) -> None:
    podman(fake, A, name=name)
    number = fake.cgroup(f"/m/libpod-{A}")
    assert [c.shown for c in known(host=fake.host)] == [shown]
    label = Names(host=fake.host).name_of(number, 0) or ""
    assert escape(label.encode("utf-8", "surrogatepass")) == shown
    with pytest.raises(NotRunning) as error:
        find("other", host=fake.host)
    assert error.value.hint == f"running now: {shown}"
    assert shown.isprintable()


def test_pods_with_hostile_names_are_printable(fake: FakeHost) -> None:
    fake.cgroup(containerd(fake, A, pod="\x1b[2J", namespace="\n", name="\u202e"))
    with pytest.raises(NotRunning) as error:
        find("pod/x", host=fake.host)
    assert (error.value.hint or "").isprintable()
    assert known(host=fake.host)[0].shown == r"\n/\x1b[2J/\u202e"


KEYS = (
    "id names metadata annotations linux cgroupsPath Name cgroup_paths init_process_pid init_process_start pid "
    "cgroup-path nerdctl/name io.kubernetes.cri.sandbox-name io.kubernetes.pod.name data-root storage graphroot"
)
texts = st.sampled_from([A, B, "/", "/m", "web", "", "\0", "\ud800", "/sys/fs/cgroup", "23"]) | st.text(max_size=4)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS.split()) | texts, inner, max_size=4)
    ),
    max_leaves=8,
)


@given(contents=st.lists(values, min_size=len(STATE_FILES), max_size=len(STATE_FILES)))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_state_whatever_is_a_traceback(fake: FakeHost, contents: list[object]) -> None:
    fake.process(23, "/m")
    for file, value in zip(STATE_FILES, contents, strict=True):
        fake.json(file, value)
    number = fake.cgroup(f"/m/libpod-{A}")
    assert Names(host=fake.host).name_of(number, 23)
    for text in (A, "web", "pod/web"):
        with contextlib.suppress(FlakError):
            find(text, host=fake.host)


# names for events


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def walks(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """One entry for each walk over all cgroups."""
    real, seen = cgroups.walk, []

    def walk(**options: Any) -> Iterator[Cgroup]:
        seen.append(None)
        return real(**options)

    monkeypatch.setattr(cgroups, "walk", walk)
    return seen


def test_a_cgroup_of_no_container_has_no_name_and_costs_no_walk(fake: FakeHost, walks: list[None]) -> None:
    number = fake.cgroup("/system.slice/cron.service")
    fake.process(23, "/system.slice/cron.service")
    names = Names(host=fake.host)
    assert [names.name_of(number, 23) for _ in range(3)] == [None] * 3
    assert walks == []


def test_a_name_is_kept_when_the_container_is_gone(fake: FakeHost) -> None:
    path = podman(fake, A)
    number = fake.cgroup(path)
    names = Names(host=fake.host)
    assert names.name_of(number, 0) == "web"
    (fake.top / path[1:]).rmdir()
    podman(fake, B)
    assert names.name_of(number, 0) == "web"


def test_a_container_seen_in_a_walk_is_named_when_it_is_gone(fake: FakeHost) -> None:
    path = podman(fake, A)
    number, other = fake.cgroup(path), fake.cgroup("/other")
    names = Names(host=fake.host)
    assert names.name_of(other, 0) is None
    (fake.top / path[1:]).rmdir()
    assert names.name_of(number, 0) == "web"


def test_unknown_cgroups_are_walked_for_once_a_second(fake: FakeHost, walks: list[None]) -> None:
    clock = Clock()
    names = Names(host=fake.host, clock=clock)
    assert names.name_of(2**60, 0) is None
    path = podman(fake, A)
    number = fake.cgroup(path)
    assert [names.name_of(n, 0) for n in (number, 2**60 + 1, number, 2**60)] == [None] * 4
    assert len(walks) == 1
    clock.now += 1.01
    assert names.name_of(number, 0) == "web"
    assert names.name_of(2**60 + 1, 0) is None
    assert len(walks) == 2
    podman(fake, A, name="renamed")
    assert names.name_of(number, 0) == "web", "looked up once"
    clock.now += 100
    assert names.name_of(2**60, 0) is None, "what was not there after a walk is gone for good"
    assert len(walks) == 2


def test_a_process_that_has_moved_is_not_believed(fake: FakeHost) -> None:
    path = podman(fake, A)
    number = fake.cgroup("/system.slice")
    fake.cgroup(path)
    fake.process(23, path)
    assert Names(host=fake.host).name_of(number, 23) is None


def test_nothing_mounted_is_no_name(tmp_path: Path) -> None:
    fake = FakeHost(tmp_path)
    names = Names(host=fake.host)
    assert [names.name_of(number, 23) for number in (0, 1, 2**64 - 1)] == [None] * 3


def test_a_container_describes_itself() -> None:
    container = Container(A, None, "docker", "web-0", None, None)
    assert container.shown == f"web-0/{A[:12]}"


def test_this_machine_is_looked_at_without_a_traceback() -> None:
    assert all(c.shown.isprintable() for c in known())
    assert Names().name_of(0, os.getpid()) is None
    assert State().ids() >= set()


def test_a_session_asks_again_for_a_cgroup_that_had_no_name_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([None, "web"])
    monkeypatch.setattr(Names, "name_of", lambda *_: next(answers))
    session = Session(Selection.of(all_processes=True))
    met = [builders.task(cgroup_id=7)]
    named = [session._name_containers(met) for _ in range(3)]
    assert named == [[], [container_record(7, "web")], []], "found at the second time, told once"
