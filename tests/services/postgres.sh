# Sourced by tests/run: a private PostgreSQL on loopback, gone with its folder.

# postgres_programs: the folder of initdb and pg_ctl; fails when PostgreSQL's server is not installed.
postgres_programs() {
    local folder
    for folder in "$(newest /usr/lib/postgresql/*/bin /usr/pgsql-*/bin)" \
        "$(pg_config --bindir 2>/dev/null)" "$(dirname "$(command -v initdb || echo /)")"; do
        if [[ -x $folder/initdb && -x $folder/pg_ctl ]]; then
            printf '%s\n' "$folder"
            return
        fi
    done
    return 1
}

need_postgres() {
    postgres_programs >/dev/null || install_package postgresql "the PostgreSQL server"
    postgres_programs >/dev/null ||
        fail "initdb and pg_ctl are not found in /usr/lib/postgresql/*/bin, by pg_config or on PATH; install the" \
            "PostgreSQL server or set REFIT_TEST_POSTGRES_URL"
}

# as_postgres FOLDER PROGRAM…: runs as an ordinary user, because PostgreSQL refuses to run as root.
as_postgres() {
    local home=$1 user=nobody
    shift
    if ! is_root; then
        (cd "$home" && "$@")
        return
    fi
    if id postgres >/dev/null 2>&1; then user=postgres; fi
    chown "$user" "$home"
    (cd "$home" && HOME="$home" setpriv --reuid="$user" --regid="$(id -g "$user")" --clear-groups "$@")
}

# start_postgres FOLDER [crash-safe]: starts it and sets postgres_url. By itself it may lose what was committed last when it is
# killed: nothing here outlives the run, and most tests kill Refit's processes, not the database's.
start_postgres() {
    local folder=$1 durability=${2:-} port programs
    programs="$(postgres_programs)"
    port="$(free_ports 1)"
    mkdir -p "$folder"
    as_postgres "$folder" "$programs/initdb" -D "$folder/data" -U refit -A trust -E UTF8 --locale=C --no-sync \
        >"$folder/initdb.log" 2>&1 || {
        tail -n 20 "$folder/initdb.log" >&2
        fail "failed to create a private PostgreSQL cluster in $folder/data"
    }
    local options="-c listen_addresses=127.0.0.1 -p $port -k $folder -c max_connections=200"
    if [[ $durability != crash-safe ]]; then
        options+=" -c fsync=off -c synchronous_commit=off -c full_page_writes=off"
    fi
    printf '%s\n' "$options" >"$folder/options"
    as_postgres "$folder" "$programs/pg_ctl" -D "$folder/data" -l "$folder/server.log" -w -t 60 -o "$options" start \
        >"$folder/start.log" 2>&1 </dev/null || {
        cat "$folder/start.log" "$folder/server.log" 2>/dev/null | tail -n 20 >&2
        fail "failed to start a private PostgreSQL on 127.0.0.1:$port"
    }
    postgres_url="postgres://refit@127.0.0.1:$port/postgres"
}

# crash_postgres FOLDER: ends it as a power cut would (no checkpoint, no goodbye) and starts it again on its port.
crash_postgres() {
    local folder=$1 programs
    programs="$(postgres_programs)"
    as_postgres "$folder" "$programs/pg_ctl" -D "$folder/data" -m immediate -w -t 30 stop >/dev/null
    as_postgres "$folder" "$programs/pg_ctl" -D "$folder/data" -l "$folder/server.log" -w -t 60 -o "$(<"$folder/options")" \
        start >/dev/null 2>&1 </dev/null
}

stop_postgres() {
    local folder=$1
    [[ -e $folder/data/postmaster.pid ]] || return 0
    as_postgres "$folder" "$(postgres_programs)/pg_ctl" -D "$folder/data" -m immediate -w -t 30 stop >/dev/null
}
