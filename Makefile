# The two commands of the README are `make demo` and `make test`; each sets up what it needs.
PYTHON := .venv/bin/python
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)

.PHONY: demo test check format setup bench soak clean

demo: setup
	$(SUDO) tools/demo.sh

test: check
	$(SUDO) env FLAK_REQUIRE_KERNEL=1 $(PYTHON) -m pytest

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
