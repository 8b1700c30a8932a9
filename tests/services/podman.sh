# Sourced by tests/run --soak: podman, and settings with which it starts containers where little is allowed.

# need_podman FOLDER: installs podman and runc where they are missing; exports CONTAINERS_CONF, a file in FOLDER.
need_podman() {
    command -v podman >/dev/null || install_package podman podman
    command -v runc >/dev/null || install_package runc runc
    # Not every root may raise limits, and crun starts nothing where both versions of cgroups are mounted.
    cat >"$1/containers.conf" <<-'END'
	[containers]
	default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
	[engine]
	runtime = "runc"
	END
    export CONTAINERS_CONF="$1/containers.conf"
}
