# Sourced by tests/run: a private MLflow server on loopback, gone with its folder. It comes from PyPI, once, into a folder that
# is kept: REFIT_TEST_MLFLOW_CACHE, else refit-tests under XDG_CACHE_HOME or ~/.cache.

# The version that is tested against.
mlflow_version=3.17.2

# mlflow_program: the path of its command, whether it is there or not.
mlflow_program() {
    local cache=${REFIT_TEST_MLFLOW_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/refit-tests}
    printf '%s\n' "$cache/mlflow-$mlflow_version/bin/mlflow"
}

# need_mlflow: installs it where it is not there yet: half a minute, and 620 MB. What is there is whole: it is made beside and
# moved into place.
need_mlflow() {
    local program folder log fresh
    program="$(mlflow_program)"
    [[ ! -x $program ]] || return 0
    folder="$(dirname "$(dirname "$program")")"
    fresh="$folder.$$"
    log="$(mktemp)"
    say "MLflow $mlflow_version is missing: installing it from PyPI into $folder…"
    mkdir -p "$(dirname "$folder")"
    {
        # Its scripts name the folder they were made in; --relocatable ones do not, and moving is all that makes it whole.
        python3 -m venv "$fresh.uv" &&
            "$fresh.uv/bin/pip" install --quiet --disable-pip-version-check uv &&
            "$fresh.uv/bin/uv" venv --quiet --relocatable --python "$(command -v python3)" "$fresh" &&
            "$fresh.uv/bin/uv" pip install --quiet --python "$fresh/bin/python" "mlflow==$mlflow_version"
    } >"$log" 2>&1 </dev/null || {
        tail -n 20 "$log" >&2
        rm -rf "$fresh" "$fresh.uv" "$log"
        fail "failed to install MLflow $mlflow_version from PyPI: mend that, or set REFIT_TEST_MLFLOW_URL to the URL of a server" \
            "that may be written to"
    }
    rm -rf "$fresh.uv" "$log"
    # Of two that install at once, the first is as good.
    mv -T "$fresh" "$folder" 2>/dev/null || rm -rf "$fresh"
    [[ -x $program ]] || fail "MLflow was installed, and $program is not there"
}

# launch_mlflow FOLDER: starts it in the background, on the same port with the same data when it was there before;
# await_mlflow waits for it.
launch_mlflow() {
    local folder=$1 port
    mkdir -p "$folder/artifacts"
    [[ -s $folder/port ]] || free_ports 1 >"$folder/port"
    port="$(<"$folder/port")"
    # A session of its own: Ctrl-C must reach the tests, and this only in order, from the clean-up.
    env DO_NOT_TRACK=1 MLFLOW_DISABLE_TELEMETRY=true MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false \
        setsid "$(mlflow_program)" server --host 127.0.0.1 --port "$port" --workers 1 \
        --backend-store-uri "sqlite:///$folder/mlflow.db" --artifacts-destination "$folder/artifacts" \
        >>"$folder/log" 2>&1 </dev/null &
    printf '%s\n' $! >"$folder/pid"
}

# await_mlflow FOLDER: waits until it answers; sets mlflow_url.
await_mlflow() {
    local folder=$1 port tries
    port="$(<"$folder/port")"
    for ((tries = 0; tries < 900; tries++)); do
        if answers_health "$port"; then
            mlflow_url="http://127.0.0.1:$port"
            return
        fi
        kill -0 "$(<"$folder/pid")" 2>/dev/null || break
        sleep 0.2
    done
    tail -n 40 "$folder/log" >&2
    fail "failed to start a private MLflow on 127.0.0.1:$port"
}

# answers_health PORT: whether an HTTP server there says that it is well.
answers_health() {
    local status
    (
        exec 3<>"/dev/tcp/127.0.0.1/$1" && printf 'GET /health HTTP/1.0\r\n\r\n' >&3 &&
            IFS= read -r -t 10 -u 3 status && [[ $status == *" 200 "* ]]
    ) 2>/dev/null
}

# stop_mlflow FOLDER: ends it at once, with the process that serves.
stop_mlflow() {
    local pid
    [[ -s $1/pid ]] || return 0
    pid="$(<"$1/pid")"
    kill -KILL -- "-$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
}
