# Two commands matter: `make demo` and `make test`.

PROGRAMS := $(or $(CARGO_TARGET_DIR),target)
PREFIX := /usr/local
# Network namespaces, AF_XDP and apt need root; cargo builds as whoever calls.
ROOT := $(shell [ "$$(id -u)" = 0 ] || command -v sudo)
AS_ROOT = $(if $(ROOT),--config 'target."cfg(unix)".runner="$(ROOT)"')
# Tests in namespaces that say how long clients wait: they run alone.
TIMED := netns::pair netns::scale netns::upgrade
SHELL_SCRIPTS := .ci/run config/install.sh $(wildcard tests/*.sh tests/lab/*.sh tests/guest/*.sh tests/guest/uml-init benches/guest/*.sh tests/completion/*.bash)

.DEFAULT_GOAL := help
TOOLS := tools-build tools-check tools-demo tools-test tools-fuzz tools-bench tools-guest
.PHONY: help demo demo-down test fuzz build man install uninstall check bench bench-quick bench-checks bench-vm soak soak-live test-guest test-pair test-scale test-mixed $(TOOLS)

help: ## list these commands
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 20

demo: tools-demo ## show it: clients, a router running xlvs and two web servers in network namespaces (KEEP=1 leaves them up)
	cargo build --release --bins
	@$(ROOT) tests/demo.sh --programs "$(PROGRAMS)/release" $(if $(KEEP),--keep)

demo-down: ## remove what `make demo KEEP=1` left up
	@$(ROOT) tests/demo.sh --down

test: tools-test check ## run every test, those in network namespaces as well (DEMO=1: and then the demo on the programs that they built)
	cargo test --lib --bins --test tests
	cargo test --doc
	tests/fuzz.sh 10
	cargo test --test netns $(AS_ROOT) -- $(TIMED:%=--skip %)
	cargo test --test netns $(AS_ROOT) -- --test-threads 1 $(TIMED)
	@$(ROOT) tests/mixed.sh --programs "$(PROGRAMS)/debug"
ifdef DEMO
	@$(ROOT) tests/demo.sh --programs "$(PROGRAMS)/debug"
endif

test-guest: tools-guest build ## what needs other kernels or devices: virtual machines with Linux 6.12 and 6.1, two queues, VLANs, bonds (4 minutes)
	@$(ROOT) tests/guest/test.sh --programs "$(PROGRAMS)/release" $(OPTIONS)

test-pair: tools-test ## the pair's tests in full: 2,000 connections that never end, 100 takeovers in a row (nine minutes)
	cargo test --test netns --config 'target."cfg(unix)".runner="$(ROOT) env XLVS_PAIR_CONNECTIONS=2000 XLVS_PAIR_TAKEOVERS=100"' -- pair:: --nocapture --test-threads 1

test-scale: tools-test ## a pair and an upgrade with CONNECTIONS=N connections, or two million (four minutes)
	cargo test --test netns --config 'target."cfg(unix)".runner="$(ROOT) env XLVS_SCALE_CONNECTIONS=$(or $(CONNECTIONS),2000000)"' -- scale:: --nocapture --test-threads 1

test-mixed: tools-test build ## a router with Linux's IPVS (user-mode-linux) and one with xlvs take over each other's connections (OPTIONS="--connections N": see tests/mixed.sh)
	@$(ROOT) tests/mixed.sh --programs "$(PROGRAMS)/release" $(OPTIONS)

fuzz: tools-fuzz ## fuzz for 15 seconds a target (SECONDS=N for longer, TARGET=NAME for one: see tests/fuzz/targets)
	tests/fuzz.sh $(or $(SECONDS),15) $(TARGET)

build: tools-build ## build the programs
	cargo build --release --bins

man: build ## write the manual pages and the bash completions below target
	@mkdir -p "$(PROGRAMS)/man" "$(PROGRAMS)/completion/bash"
	@set -e; for page in ipvsadm.8 xlvs.8 lvs.cf.5; do "$(PROGRAMS)/release/xlvs" man "$${page%.*}" >"$(PROGRAMS)/man/$$page"; done
	@set -e; for program in ipvsadm xlvs; do "$(PROGRAMS)/release/xlvs" completion bash "$$program" >"$(PROGRAMS)/completion/bash/$$program"; done

install: build ## install programs, manual pages, completions and the systemd unit (PREFIX=/usr/local DESTDIR=)
	@$(if $(DESTDIR),,$(ROOT)) config/install.sh --programs "$(PROGRAMS)/release" --prefix "$(PREFIX)" --destdir "$(DESTDIR)"

uninstall: ## remove what `make install` has put there; configuration stays
	@$(if $(DESTDIR),,$(ROOT)) config/install.sh --prefix "$(PREFIX)" --destdir "$(DESTDIR)" --uninstall

check: tools-check ## formatting, clippy, shellcheck
	cargo fmt --check
	cargo fmt --check --manifest-path tests/fuzz/Cargo.toml
	cargo clippy --all-targets -- -D warnings
	shellcheck -x $(SHELL_SCRIPTS)

bench: tools-bench ## measure the engine alone, then end to end beside its peers; twenty minutes with builds (docs/benchmarks.md)
	cargo build --release --bins
	cargo bench --bench engine -- --warm-up-time 1 --measurement-time 3
	@$(ROOT) benches/endtoend/run --programs "$(PROGRAMS)/release" $(RIG)

bench-quick: tools-bench ## end to end in short, to see that it works (PROFILE=debug: with the programs that the tests have built)
	$(if $(filter debug,$(PROFILE)),,cargo build --release --bins)
	@$(ROOT) benches/endtoend/run --quick --programs "$(PROGRAMS)/$(or $(PROFILE),release)" $(RIG)

bench-checks: tools-build ## measure what 2,000 health checks a second cost, on loopback (OPTIONS=--help)
	cargo bench --bench checks -- $(OPTIONS)

soak: tools-build ## hold 2 million connections for ten minutes of virtual time while others come and go (OPTIONS=--help)
	cargo bench --bench soak -- $(OPTIONS)

soak-live: tools-bench build ## the same with the daemon over AF_XDP in network namespaces, in real time: a quarter of an hour (OPTIONS=--help)
	@$(ROOT) benches/endtoend/soak --programs "$(PROGRAMS)/release" $(OPTIONS)

bench-vm: tools-guest build ## count the router's instructions per packet beside kernel IPVS, in a virtual machine without KVM (OPTIONS=--help)
	@$(ROOT) benches/guest/run.sh --programs "$(PROGRAMS)/release" $(OPTIONS)

$(TOOLS): tools-%:
	@tests/install.sh $*
