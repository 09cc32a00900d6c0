#!/bin/sh
# Sets up everything that building and testing FLAK needs on Debian 12, Ubuntu 24.04 or newer: system packages, a virtual
# environment in .venv, the BPF object. Run as root or with sudo at hand; what is there already is left alone. Arguments
# are packages that are wanted besides.
set -eu
cd "$(dirname "$0")/.."

packages="clang llvm libbpf-dev libbpf1 gcc libc6-dev make python3-venv strace fio sqlite3 git rsync busybox-static $*"
missing=""
for package in $packages; do
	dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
done
if [ -n "$missing" ]; then
	as_root=""
	[ "$(id -u)" = 0 ] || as_root="sudo"
	$as_root apt-get update -qq
	# shellcheck disable=SC2086 # a list of packages
	$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing
fi

# The stamp is newer than whatever it was made from, or the environment is brought up to date.
stamp=.venv/flak-setup
if [ ! -e "$stamp" ] || [ -n "$(find pyproject.toml setup.py build_bpf.py vmlinux.h bpf tools/setup.sh -newer "$stamp")" ]; then
	[ -x .venv/bin/python ] || python3 -m venv .venv
	.venv/bin/python -m pip install -q --disable-pip-version-check 'pip>=25.1'
	.venv/bin/python -m pip install -q --disable-pip-version-check --group dev -e .
	touch "$stamp"
fi
