# The two commands of the README are `make demo` and `make test`; each sets up what it needs.
PYTHON := .venv/bin/python
VM_PACKAGES := qemu-system-x86 qemu-system-arm gcc-x86-64-linux-gnu gcc-aarch64-linux-gnu libc6-dev-arm64-cross \
	mmdebstrap cpio e2fsprogs debian-archive-keyring
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)

.PHONY: demo test test-kernels check format setup bench soak clean

demo: setup
	$(SUDO) tools/demo.sh

test: check
	$(SUDO) env FLAK_REQUIRE_KERNEL=1 $(PYTHON) -m pytest

# Guests with other kernels under QEMU's emulation: root, a Debian mirror, some 2 GB of ~/.cache and ten minutes.
test-kernels: setup
	@tools/setup.sh $(VM_PACKAGES)
	$(SUDO) $(PYTHON) -m tests.vm --write

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

clean:
	rm -rf .venv build dist src/flak/_bpf src/*.egg-info
