# SPDX-License-Identifier: LGPL-2.1-or-later
# 'make help' lists the targets.  Needs make, apt and root; everything else is installed when it is missing.

PYTHON := /usr/bin/python3
VENV := .venv
PREFIX ?= /usr/local
DESTDIR ?=
BINDIR := $(PREFIX)/bin
SBINDIR := $(PREFIX)/sbin
LIBDIR := $(PREFIX)/lib/mountnsd
UNITDIR ?= $(PREFIX)/lib/systemd/system
MANDIR ?= $(PREFIX)/share/man
BASHDIR ?= $(PREFIX)/share/bash-completion/completions
ZSHDIR ?= $(PREFIX)/share/zsh/site-functions
FISHDIR ?= $(PREFIX)/share/fish/vendor_completions.d
# Nothing reads these below /usr/local on every system.
POLICYDIR ?= /usr/share/dbus-1/system.d
SERVICEDIR ?= /usr/share/dbus-1/system-services
ACTIONSDIR ?= /usr/share/polkit-1/actions
CATALOGDIR ?= /usr/lib/systemd/catalog
# The daemon looks for its configuration and for declared namespaces here.
CONFIGDIR ?= /etc/mountnsd
DECLAREDDIR ?= /usr/lib/mountnsd/namespaces
# Where all that is made here goes.
BUILD := build

RUFF := 0.17.6
MYPY := 2.4.1
# What the daemon and mountnsctl need, with dbus-daemon and busctl to see them at work.
RUN_PACKAGES := dbus python3 python3-dbus-next python3-jeepney python3-systemd systemd util-linux
# What the tests need besides.
TEST_PACKAGES := bash-completion dbus-broker fish gir1.2-glib-2.0 iproute2 libglib2.0-bin libseccomp2 libxml2-utils pandoc polkitd \
	procps python3-dbus python3-dbusmock python3-gi python3-hypothesis python3-pytest python3-venv shellcheck strace zsh
# What 'make bench' needs to make its small programs, and what it compares with.
BENCH_PACKAGES := gcc iproute2 libc6-dev python3-venv
# What the machines of the system tests are made with, and run in.
SYSTEM_PACKAGES := debian-archive-keyring mmdebstrap systemd-container

# What 'make deb' and 'make rpm' need, and the tests of what they make.
DEB_PACKAGES := build-essential debhelper dh-python pandoc python3
RPM_PACKAGES := pandoc python3 rpm
PACKAGING_PACKAGES := lintian shellcheck

VERSION := $(shell sed -n 's/^__version__ = "\(.*\)"$$/\1/p' mountnsd/__init__.py)
# Of the newest entry of the changelog, so that the same source makes the same archives.
SOURCE_DATE_EPOCH ?= $(shell date --date="$$(sed -n '/^ -- /{s/.*>  //p;q}' packaging/debian/changelog)" +%s)
UNITS := $(wildcard systemd/*.service systemd/*.slice systemd/*.target systemd/*.service.in)

PAGES := $(notdir $(basename $(wildcard docs/*.[1578].md)))

# The layers of tests that there are.
LAYERS := $(foreach layer,unit integration fuzz load bench packaging system,$(if $(wildcard tests/$(layer)/test_*.py),tests/$(layer)))

# Those that look at the holder and its pins from outside the daemon, or have a hand in them.
HOLDER_TESTS := $(patsubst %,tests/integration/test_%.py,container declared destroy external_change full half_dropped \
	holder_apart holder_by_hand holder_hidden metadata_by_hand mounts_inside notice objects pins_by_hand recovery \
	registry reload signals start world)

PYTEST := $(PYTHON) -m pytest -p no:cacheprovider
export PYTHONDONTWRITEBYTECODE := 1

.PHONY: help
help: ## show this
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 26

# $(call install_missing,PACKAGES): installs those that are not there, and says so: it takes a minute or two.
define install_missing
	@missing=; for package in $(1); do \
		dpkg-query --show --showformat='$${db:Status-Status}' $$package 2>/dev/null | grep -qx installed \
			|| missing="$$missing $$package"; \
	done; \
	if test -n "$$missing"; then \
		command -v apt-get >/dev/null || { echo "there is no apt-get here; please install:$$missing" >&2; exit 1; }; \
		test "$$(id -u)" = 0 || { echo "as root, please: apt-get install$$missing" >&2; exit 1; }; \
		echo "installing$$missing (this takes a minute or two)"; \
		export DEBIAN_FRONTEND=noninteractive; \
		apt-get -qq update && apt-get -qq install --yes --no-install-recommends $$missing >/dev/null; \
	fi
endef

.PHONY: packages
packages: ## install the Debian packages that mountnsd needs, where they are missing
	$(call install_missing,$(RUN_PACKAGES))

# dbus-broker's package makes it the system bus of the next boot: that is not for a test to decide.
.PHONY: test-packages
test-packages: packages ## install the Debian packages that the tests need, where they are missing
	@test -e /etc/systemd/system/dbus.service || touch .bus-undecided
	$(call install_missing,$(TEST_PACKAGES) $(BENCH_PACKAGES) $(SYSTEM_PACKAGES) $(DEB_PACKAGES) $(RPM_PACKAGES) $(PACKAGING_PACKAGES))
	@if test -e .bus-undecided; then \
		rm .bus-undecided; \
		test ! -e /etc/systemd/system/dbus.service || systemctl --quiet disable dbus-broker.service; \
	fi

$(VENV)/ruff-$(RUFF)-mypy-$(MYPY): | test-packages
	@echo "installing ruff $(RUFF) and mypy $(MYPY) into $(VENV)"
	@rm -rf $(VENV)
	@$(PYTHON) -m venv --system-site-packages $(VENV)
	@$(VENV)/bin/pip install --quiet --disable-pip-version-check ruff==$(RUFF) mypy==$(MYPY)
	@touch $@

.PHONY: tools
tools: test-packages $(VENV)/ruff-$(RUFF)-mypy-$(MYPY) ## install what the tests and linters need

.PHONY: test
test: tools ## run every layer of tests; the first time makes root trees in build/roots
	@echo "running $(LAYERS)"
	@$(PYTEST) $(LAYERS)
	@echo "running what is about the holder once more, with a hidden one"
	@MOUNTNSD_TEST_HOLDER=hidden $(PYTEST) $(HOLDER_TESTS)

.PHONY: test-hidden
test-hidden: tools ## run all integration tests with a hidden holder
	@MOUNTNSD_TEST_HOLDER=hidden $(PYTEST) tests/integration

.PHONY: test-unit
test-unit: tools ## run the unit tests and linters alone; needs no root
	@$(PYTEST) tests/unit

.PHONY: test-integration
test-integration: tools ## run the integration tests alone
	@$(PYTEST) tests/integration

.PHONY: crash-matrix
crash-matrix: tools ## kill and fail the daemon at every step, and write docs/crash-matrix.md
	@cd tests && PYTHONPATH=$(CURDIR):$(CURDIR)/tests $(PYTHON) -m support.crash.table

.PHONY: test-load
test-load: tools ## run the tests under load alone
	@$(PYTEST) tests/load

MINUTES ?= 10
# PYTHON -m load --help says what these are.
.PHONY: soak
soak: test-packages ## load for MINUTES=10, with SEED=, BUS=dbus-broker, REPORT=docs/soak.md
	@PYTHONPATH=tests:. $(PYTHON) -m load --minutes $(MINUTES) $(if $(SEED),--seed $(SEED)) $(if $(BUS),--bus $(BUS)) \
		$(if $(REPORT),--report $(REPORT))

# PYTHON -m bench --help says what these are.
.PHONY: bench
bench: test-packages ## measure beside unshare, nsenter, ip and lsns into docs/performance.md (ROUNDS=, REPORT=, QUICK=1)
	@PYTHONPATH=tests:. $(PYTHON) -m bench $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(REPORT),--report $(REPORT)) \
		$(if $(QUICK),--quick) $(if $(HOLDER),--holder $(HOLDER))

.PHONY: test-packaging
test-packaging: tools ## run the tests of the packages alone
	@$(PYTEST) tests/packaging

.PHONY: test-system
test-system: tools ## run the tests on booted Debian systems alone
	@$(PYTEST) tests/system

# Another seed each time, unless SEED= says which; the tests in 'make test' take 1.
.PHONY: fuzz
fuzz: tools ## run the fuzzers and storms, and write docs/hostile-callers.md (SEED=, FRAMES=)
	@MOUNTNSD_FUZZ_SEED=$(or $(SEED),$$(date +%s)) MOUNTNSD_FUZZ_FRAMES=$(FRAMES) \
		MOUNTNSD_FUZZ_REPORT=docs/hostile-callers.md $(PYTEST) tests/fuzz

.PHONY: lint
lint: tools ## run the linters
	@$(PYTEST) -q tests/unit/test_linters.py

.PHONY: format
format: tools ## format the code
	@$(VENV)/bin/ruff format .
	@$(VENV)/bin/ruff check --fix .

.PHONY: demo
demo: packages ## show on this machine what mountnsd does; leaves nothing behind
	@$(PYTHON) -m demo.walkthrough

.PHONY: picture
picture: packages ## draw the walkthrough, as the README shows it, into docs/walkthrough.svg
	@$(PYTHON) -m demo.picture docs/walkthrough.svg

.PHONY: run
run: packages ## run the daemon on a private bus until Ctrl-C
	@$(PYTHON) -m demo.embedded

.PHONY: man
man: $(PAGES:%=$(BUILD)/man/%) ## make the manual pages in build/man; needs pandoc

$(BUILD)/man/%: docs/%.md
	@install -d $(@D)
	pandoc --standalone --from markdown --to man --output $@ $<

.PHONY: completions
completions: ## write the completions for shells anew, from the tables of mountnsctl
	@$(PYTHON) -m completions.generate

.PHONY: install
install: man ## install into $(DESTDIR)$(PREFIX)
	install -d $(DESTDIR)$(LIBDIR)/mountnsd/ctl $(DESTDIR)$(LIBDIR)/mountnsd/interfaces
	install -m 644 -t $(DESTDIR)$(LIBDIR)/mountnsd mountnsd/*.py mountnsd/py.typed
	install -m 644 -t $(DESTDIR)$(LIBDIR)/mountnsd/ctl mountnsd/ctl/*.py
	install -m 644 -t $(DESTDIR)$(LIBDIR)/mountnsd/interfaces dbus/*.xml
	install -d $(DESTDIR)$(SBINDIR) $(DESTDIR)$(BINDIR)
	printf '%s\n' '#!$(PYTHON) -IS' 'import sys' 'sys.path.insert(0, "$(LIBDIR)")' \
		'from mountnsd.__main__ import program' 'program()' > $(DESTDIR)$(SBINDIR)/mountnsd
	printf '%s\n' '#!$(PYTHON) -IS' 'import sys' 'sys.path.insert(0, "$(LIBDIR)")' \
		'from mountnsd.ctl.main import program' 'program()' > $(DESTDIR)$(BINDIR)/mountnsctl
	chmod 755 $(DESTDIR)$(SBINDIR)/mountnsd $(DESTDIR)$(BINDIR)/mountnsctl
	install -D -m 644 dbus/org.mountnsd1.conf $(DESTDIR)$(POLICYDIR)/org.mountnsd1.conf
	install -D -m 644 dbus/org.mountnsd1.service.in $(DESTDIR)$(SERVICEDIR)/org.mountnsd1.service
	install -D -m 644 dbus/org.mountnsd1.policy $(DESTDIR)$(ACTIONSDIR)/org.mountnsd1.policy
	install -d $(DESTDIR)$(UNITDIR)
	for unit in $(UNITS); do \
		name=$${unit##*/}; name=$${name%.in}; \
		sed -e 's|@SBINDIR@|$(SBINDIR)|g' -e 's|@BINDIR@|$(BINDIR)|g' \
			-e 's|/usr/sbin/mountnsd|$(SBINDIR)/mountnsd|g' -e 's|/usr/bin/mountnsctl|$(BINDIR)/mountnsctl|g' \
			$$unit > $(DESTDIR)$(UNITDIR)/$$name && chmod 644 $(DESTDIR)$(UNITDIR)/$$name || exit 1; \
	done
	install -D -m 644 systemd/mountnsd.catalog $(DESTDIR)$(CATALOGDIR)/mountnsd.catalog
	for page in $(PAGES); do \
		install -D -m 644 -t $(DESTDIR)$(MANDIR)/man$${page##*.} $(BUILD)/man/$$page || exit 1; \
	done
	install -D -m 644 completions/mountnsctl.bash $(DESTDIR)$(BASHDIR)/mountnsctl
	install -D -m 644 completions/_mountnsctl $(DESTDIR)$(ZSHDIR)/_mountnsctl
	install -D -m 644 completions/mountnsctl.fish $(DESTDIR)$(FISHDIR)/mountnsctl.fish
	install -d $(DESTDIR)$(CONFIGDIR)/mountnsd.toml.d $(DESTDIR)$(CONFIGDIR)/namespaces $(DESTDIR)$(DECLAREDDIR)

.PHONY: uninstall
uninstall: ## remove what 'make install' installed; the configuration stays
	rm -rf $(DESTDIR)$(LIBDIR)/mountnsd
	rm -f $(DESTDIR)$(SBINDIR)/mountnsd $(DESTDIR)$(BINDIR)/mountnsctl
	rm -f $(DESTDIR)$(POLICYDIR)/org.mountnsd1.conf $(DESTDIR)$(SERVICEDIR)/org.mountnsd1.service
	rm -f $(DESTDIR)$(ACTIONSDIR)/org.mountnsd1.policy
	for unit in $(notdir $(UNITS)); do \
		rm -f $(DESTDIR)$(UNITDIR)/$${unit%.in}; \
	done
	rm -f $(DESTDIR)$(CATALOGDIR)/mountnsd.catalog
	for page in $(PAGES); do \
		rm -f $(DESTDIR)$(MANDIR)/man$${page##*.}/$$page; \
	done
	rm -f $(DESTDIR)$(BASHDIR)/mountnsctl $(DESTDIR)$(ZSHDIR)/_mountnsctl $(DESTDIR)$(FISHDIR)/mountnsctl.fish
	for directory in $(DECLAREDDIR) $(LIBDIR) $(CONFIGDIR)/mountnsd.toml.d $(CONFIGDIR)/namespaces $(CONFIGDIR); do \
		test ! -d $(DESTDIR)$$directory || rmdir --ignore-fail-on-non-empty $(DESTDIR)$$directory; \
	done

# $(call copy_tree,DIRECTORY): copies what git tracks; where there is no git, all that was not made here.
define copy_tree
	@rm -rf $(1) && install -d $(1)
	@{ test -e .git && git -c safe.directory='$(CURDIR)' ls-files -z 2>/dev/null \
			|| find . '(' -path ./.git -o -path ./build -o -path ./.venv -o -name __pycache__ -o -name '.*_cache' \
				-o -name .hypothesis -o -name '*.egg-info' ')' -prune -o ! -type d -printf '%P\0'; } \
		| tar --create --null --files-from=- --mode=u+rwX,go+rX,go-w | tar --extract --no-same-owner --directory $(1)
endef

# Packages are built from a copy, in an environment without this make's variables.
NAME := mountnsd-$(VERSION)
CLEANLY := env -u MAKEFLAGS -u MFLAGS -u MAKELEVEL

.PHONY: deb
deb: ## make the Debian package, build/deb/mountnsd_VERSION_all.deb
	$(call install_missing,$(DEB_PACKAGES))
	$(call copy_tree,$(BUILD)/deb/$(NAME))
	@mv $(BUILD)/deb/$(NAME)/packaging/debian $(BUILD)/deb/$(NAME)/debian
	@rm -f $(BUILD)/deb/mountnsd_*
	cd $(BUILD)/deb/$(NAME) && $(CLEANLY) dpkg-buildpackage --unsigned-source --unsigned-changes
	@rm -rf $(BUILD)/deb/$(NAME)
	@echo "this is $(BUILD)/deb/mountnsd_$(VERSION)_all.deb"

.PHONY: dist
dist: ## make the source archive, build/dist/mountnsd-VERSION.tar.gz
	$(call copy_tree,$(BUILD)/dist/$(NAME))
	@tar --create --directory $(BUILD)/dist --sort=name --owner=root:0 --group=root:0 --mtime=@$(SOURCE_DATE_EPOCH) \
		$(NAME) | gzip --no-name --best > $(BUILD)/dist/$(NAME).tar.gz
	@rm -rf $(BUILD)/dist/$(NAME)

# The build dependencies have Fedora's names: on Debian they are there by the names above.
.PHONY: rpm
rpm: dist ## make the RPM package in build/rpm
	$(call install_missing,$(RPM_PACKAGES))
	@rm -rf $(BUILD)/rpm && install -d $(BUILD)/rpm
	$(CLEANLY) rpmbuild -ba --nodeps --define '_topdir $(abspath $(BUILD)/rpm)' \
		--define '_sourcedir $(abspath $(BUILD)/dist)' packaging/rpm/mountnsd.spec
	@rm -rf $(BUILD)/rpm/BUILD $(BUILD)/rpm/BUILDROOT

.PHONY: clean
clean: ## remove what the other targets made here
	rm -rf $(VENV) build .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
