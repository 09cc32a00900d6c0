# The two commands of the README are `make demo` and `make test`; each sets up what it needs.
PYTHON := .venv/bin/python
VM_PACKAGES := qemu-system-x86 qemu-system-arm gcc-x86-64-linux-gnu gcc-aarch64-linux-gnu libc6-dev-arm64-cross \
	mmdebstrap cpio e2fsprogs debian-archive-keyring
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)

.PHONY: demo test test-kernels check format setup bench soak dist test-dist deb test-deb pyz clean

demo: setup
	$(SUDO) tools/demo.sh

# The fast ones first, in two processes. Those that trace go one after the other: each may see what another does.
test: check
	$(SUDO) env FLAK_REQUIRE_KERNEL=1 $(PYTHON) -m pytest -n 2 tests/unit
	$(SUDO) env FLAK_REQUIRE_KERNEL=1 $(PYTHON) -m pytest tests/kernel tests/packaging

# Guests with other kernels under QEMU's emulation run the wheels of `make dist`: root, a Debian mirror, some 2 GB of
# ~/.cache and a quarter of an hour.
test-kernels: dist
	@tools/setup.sh $(VM_PACKAGES)
	$(SUDO) $(PYTHON) -m tests.vm --wheels dist --write

check: setup
	$(PYTHON) -m ruff check
	$(PYTHON) -m ruff format --check
	$(PYTHON) -m mypy
	.venv/bin/clang-format --dry-run --Werror bpf/*.c bpf/*.h
	$(PYTHON) build_bpf.py --check

format: setup
	$(PYTHON) -m ruff check --fix
	$(PYTHON) -m ruff format
	.venv/bin/clang-format -i bpf/*.c bpf/*.h

setup:
	@tools/setup.sh

bench: setup
	$(SUDO) $(PYTHON) -m benchmarks

soak: setup
	$(SUDO) $(PYTHON) -m tests.soak $(SOAK)

# What is published, in dist/: an sdist, and from it a wheel for each architecture with a libbpf of its own
dist: setup
	$(PYTHON) -m tools.dist

# The wheels where there is no network and no compiler, and FLAK with several versions of libbpf; minutes
test-dist: setup
	@tools/setup.sh debootstrap
	$(SUDO) env FLAK_TEST_DIST=1 $(PYTHON) -m pytest tests/packaging/test_dist.py

# A Debian package, dist/flak_*.deb: on Debian 13, Ubuntu 24.04 or newer, after `sudo apt build-dep .`
deb:
	rm -rf build/deb
	mkdir -p build/deb/flak dist
	tar --exclude-vcs --exclude=./build --exclude=./dist --exclude=./.venv --exclude=./src/flak/_bpf --exclude='*.egg-info' \
		--exclude='.*_cache' --exclude=__pycache__ --exclude=.hypothesis -cf - . | tar -xf - -C build/deb/flak
	cd build/deb/flak && dpkg-buildpackage -b -us -uc
	mv build/deb/*.deb dist/

# Builds it in a Debian 13 of its own, installs it in another and traces there; minutes, and 3 GB under /tmp
test-deb: setup
	@tools/setup.sh debootstrap
	$(SUDO) env FLAK_TEST_DEB=1 $(PYTHON) -m pytest tests/packaging/test_deb.py

# dist/flak.pyz, FLAK in one file; LIBBPF="FILE …" puts a libbpf.so.1 in, one for each architecture
pyz: setup
	$(PYTHON) tools/build_pyz.py dist/flak.pyz $(LIBBPF)

clean:
	rm -rf .venv build dist src/flak/_bpf src/*.egg-info
