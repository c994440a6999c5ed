# make demo     see it work, in network namespaces; nothing of this machine's network is touched
# make test     everything that must pass
# make bench    the numbers
# make build    the programs, in bin/
# make install  the programs and their files, with DESTDIR and PREFIX as usual (by meson)
#
# demo, test, bench and install set up what they need by scripts/setup.sh. What must be root is
# run by sudo, what needn't isn't: build and test as yourself.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:

GO ?= go
PREFIX ?= /usr
PACKAGES ?= ./...
TESTFLAGS ?=
VERSION := $(shell sed -n "s/^ *version: '\(.*\)',.*/\1/p" meson.build)
LDFLAGS := -X main.version=$(VERSION)
AS_ROOT := $(if $(filter-out 0,$(shell id -u)),sudo -E env PATH=$(PATH))

# Nothing here needs C, and sources needn't be a repository of the caller's own.
export CGO_ENABLED := 0
export GOFLAGS := -buildvcs=false

.PHONY: all build setup test vet demo bench install clean

all: build

build:
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./cmd/...

setup:
	@GO=$(GO) scripts/setup.sh

vet:
	@echo "gofmt, go vet"
	@unformatted=$$("$$($(GO) env GOROOT)/bin/gofmt" -l cmd data dbus policy service test); \
		if [ -n "$$unformatted" ]; then printf 'not formatted:\n%s\n' "$$unformatted"; exit 1; fi
	@$(GO) vet ./...

# Two packages at a time: each brings up networks of its own, and time matters to some.
test: setup build vet
	@$(GO) build -o bin/report ./test/report
	@bin/report $(GO) test -json -count=1 -p 2 -timeout 20m $(if $(AS_ROOT),-exec '$(AS_ROOT)') $(TESTFLAGS) $(PACKAGES)

demo: setup build
	@$(GO) build -o bin/demo ./test/demo
	@$(AS_ROOT) bin/demo

bench: setup build
	@$(GO) build -o bin/bench ./test/bench
	@$(AS_ROOT) bin/bench

# The build directory is made as the caller, who has Go in the path and in the cache; only the
# copying may need root.
install: setup
	@[ -f build/build.ninja ] || meson setup build --prefix='$(PREFIX)' --libexecdir=libexec
	meson configure build -Dprefix='$(PREFIX)'
	meson compile -C build
	$(if $(DESTDIR),,$(AS_ROOT)) meson install -C build --no-rebuild $(if $(DESTDIR),--destdir '$(DESTDIR)')

clean:
	rm -rf bin build
	$(GO) clean -testcache
