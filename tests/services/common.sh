# Sourced by tests/run: saying things, finding and installing programs, free ports. Starts nothing.

say() { printf 'tests/run: %s\n' "$*" >&2; }

fail() {
    say "$*"
    exit 1
}

is_root() { [[ $(id -u) == 0 ]]; }

# newest FOLDER…: the last existing folder in version order; fails when there is none.
newest() {
    local folder found=()
    for folder in "$@"; do
        if [[ -d $folder ]]; then found+=("$folder"); fi
    done
    [[ ${#found[@]} -gt 0 ]] && printf '%s\n' "${found[@]}" | sort -V | tail -n 1
}

# install_package PACKAGE WHAT: installs a Debian package as root, or says what to install and fails.
install_package() {
    local package=$1 what=$2 policy=/usr/sbin/policy-rc.d log
    if ! is_root || ! command -v apt-get >/dev/null; then
        fail "$what is missing: install it (Debian and Ubuntu: apt-get install $package) and run this again"
    fi
    say "$what is missing: installing $package with apt-get…"
    # The package must not start a server of its own; the tests start a private one.
    local own_policy=no
    if [[ ! -e $policy ]]; then
        own_policy=yes
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
    fi
    log="$(mktemp)"
    local installed=yes
    {
        apt-get -qq update &&
            DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "$package"
    } >"$log" 2>&1 </dev/null || installed=no
    if [[ $own_policy == yes ]]; then rm -f "$policy"; fi
    if [[ $installed == no ]]; then
        tail -n 20 "$log" >&2
        fail "failed to install $package: install $what by hand and run this again"
    fi
    rm -f "$log"
}

need_cargo() {
    command -v cargo >/dev/null || fail "cargo is missing: install Rust from https://rustup.rs and run this again"
}

# The example's steps and the worker's environments run on Python 3 with venv.
need_python() {
    command -v python3 >/dev/null || install_package python3-venv "Python 3"
    python3 -c 'import venv, ensurepip' 2>/dev/null || install_package python3-venv "Python's venv module"
    python3 -c 'import venv, ensurepip' 2>/dev/null ||
        fail "python3 ($(command -v python3)) has no venv module: install a complete Python 3.9 or newer"
}

# free_ports COUNT: that many free loopback ports, below the range that outgoing connections take theirs from.
free_ports() {
    python3 - "$1" <<'PYTHON'
import random, socket, sys

held = []
while len(held) < int(sys.argv[1]):
    candidate = socket.socket()
    try:
        candidate.bind(("127.0.0.1", random.randrange(20000, 32000)))
        held.append(candidate)
    except OSError:
        candidate.close()
print(*(taken.getsockname()[1] for taken in held))
PYTHON
}

# target_folder: where cargo puts what it builds.
target_folder() {
    cargo metadata --no-deps --format-version 1 |
        python3 -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])'
}
