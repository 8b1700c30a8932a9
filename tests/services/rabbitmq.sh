# Sourced by tests/run: a private RabbitMQ node on loopback with its own Erlang port mapper, gone with its folder.

# rabbitmq_program: the path of rabbitmq-server; fails when it is not installed. The one under lib comes first: the
# wrapper that Debian puts on PATH insists on the user `rabbitmq`.
rabbitmq_program() {
    local folder
    folder="$(newest /usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin)" || true
    if [[ -n $folder && -x $folder/rabbitmq-server ]]; then
        printf '%s\n' "$folder/rabbitmq-server"
    else
        command -v rabbitmq-server
    fi
}

# rabbitmqctl_program: what administers a node. Again not the wrapper on PATH, where there is another.
rabbitmqctl_program() {
    local beside
    beside="$(dirname "$(rabbitmq_program)")/rabbitmqctl"
    if [[ -x $beside ]]; then printf '%s\n' "$beside"; else command -v rabbitmqctl; fi
}

# epmd_program: Erlang's port mapper.
epmd_program() {
    command -v epmd || ls /usr/lib/erlang/erts-*/bin/epmd 2>/dev/null | sort -V | tail -n 1 | grep .
}

need_rabbitmq() {
    command -v openssl >/dev/null || install_package openssl "OpenSSL's command"
    rabbitmq_program >/dev/null && epmd_program >/dev/null && return
    install_package rabbitmq-server "RabbitMQ"
    rabbitmq_program >/dev/null && epmd_program >/dev/null && return
    fail "rabbitmq-server and epmd are not found in /usr/lib/rabbitmq/lib/*/sbin or on PATH; install RabbitMQ or set" \
        "REFIT_TEST_AMQP_URL"
}

# make_certificates FOLDER: an authority (ca.pem), the broker's certificate for localhost (server.pem), and one that stands
# for the broker's user guest (client.pem); each with its key. Good for as long as a run of the tests, and no longer.
make_certificates() {
    local folder=$1 name
    mkdir -p "$folder"
    (
        cd "$folder"
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj "/CN=Refit tests" \
            -keyout ca.key -out ca.pem
        for name in server:localhost client:guest; do
            openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=${name#*:}" \
                -keyout "${name%:*}.key" -out "${name%:*}.csr"
            openssl x509 -req -in "${name%:*}.csr" -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 \
                -extfile <(printf 'subjectAltName=DNS:%s\n' "${name#*:}") -out "${name%:*}.pem"
        done
    ) >"$folder/openssl.log" 2>&1 || {
        tail -n 20 "$folder/openssl.log" >&2
        fail "failed to make certificates with openssl in $folder"
    }
}

# launch_rabbitmq FOLDER: starts the node in the background, again with its ports, certificates and data when it was there
# before; await_rabbitmq waits for it. It listens without TLS, and with it for those who show a certificate or a password.
launch_rabbitmq() {
    local folder=$1 amqp amqps mapper distribution
    mkdir -p "$folder"/{home,data,log,schema}
    [[ -s $folder/ports ]] || free_ports 4 >"$folder/ports"
    read -r amqp amqps mapper distribution <"$folder/ports"
    [[ -d $folder/certificates ]] || make_certificates "$folder/certificates"
    printf '%s\n' "$amqp" >"$folder/port"
    printf '%s\n' "$amqps" >"$folder/tls-port"
    printf '[rabbitmq_auth_mechanism_ssl].\n' >"$folder/enabled_plugins"
    cat >"$folder/rabbitmq.conf" <<CONF
listeners.tcp.1 = 127.0.0.1:$amqp
listeners.ssl.1 = 127.0.0.1:$amqps
ssl_options.cacertfile = $folder/certificates/ca.pem
ssl_options.certfile = $folder/certificates/server.pem
ssl_options.keyfile = $folder/certificates/server.key
ssl_options.verify = verify_peer
ssl_options.fail_if_no_peer_cert = false
ssl_cert_login_from = common_name
auth_mechanisms.1 = PLAIN
auth_mechanisms.2 = AMQPLAIN
auth_mechanisms.3 = EXTERNAL
CONF
    # What runs rabbitmqctl on this node: \`ctl list_queues\`.
    cat >"$folder/ctl" <<CTL
#!/bin/sh
export HOME='$folder/home' LC_ALL=C.UTF-8 ERL_EPMD_ADDRESS=127.0.0.1 ERL_EPMD_PORT=$mapper RABBITMQ_CONF_ENV_FILE=/dev/null
exec '$(rabbitmqctl_program)' --node refit-tests-$amqp@localhost --quiet "\$@"
CTL
    chmod 755 "$folder/ctl"
    # Sessions of their own: Ctrl-C must reach the tests, and these only in order, from the clean-up.
    setsid "$(epmd_program)" -address 127.0.0.1 -port "$mapper" >"$folder/log/epmd" 2>&1 </dev/null &
    printf '%s\n' $! >"$folder/epmd.pid"
    env HOME="$folder/home" LC_ALL=C.UTF-8 \
        ERL_EPMD_ADDRESS=127.0.0.1 ERL_EPMD_PORT="$mapper" \
        RABBITMQ_NODENAME="refit-tests-$amqp@localhost" RABBITMQ_CONF_ENV_FILE=/dev/null \
        RABBITMQ_CONFIG_FILE="$folder/rabbitmq" RABBITMQ_ENABLED_PLUGINS_FILE="$folder/enabled_plugins" \
        RABBITMQ_BASE="$folder" RABBITMQ_MNESIA_BASE="$folder/data" RABBITMQ_LOG_BASE="$folder/log" \
        RABBITMQ_SCHEMA_DIR="$folder/schema" RABBITMQ_GENERATED_CONFIG_DIR="$folder/schema" \
        RABBITMQ_PID_FILE="$folder/beam.pid" RABBITMQ_DIST_PORT="$distribution" \
        RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="-kernel inet_dist_use_interface {127,0,0,1}" \
        setsid "$(rabbitmq_program)" >"$folder/log/server" 2>&1 </dev/null &
    printf '%s\n' $! >"$folder/server.pid"
}

# greets PORT: whether an AMQP server answers the protocol header (AMQP 0-9-1, section 4.2.2) with a method frame.
greets() {
    local answer
    (
        exec 3<>"/dev/tcp/127.0.0.1/$1" && printf 'AMQP\x00\x00\x09\x01' >&3 &&
            IFS= read -r -n 1 -t 5 -u 3 answer && [[ $answer == $'\x01' ]]
    ) 2>/dev/null
}

# await_rabbitmq FOLDER: waits until the node, which opens its AMQP listeners last, answers; sets rabbitmq_url
# and rabbitmq_tls_url.
await_rabbitmq() {
    local folder=$1 port tries
    port="$(<"$folder/port")"
    for ((tries = 0; tries < 600; tries++)); do
        if greets "$port"; then
            rabbitmq_url="amqp://guest:guest@127.0.0.1:$port/%2f"
            rabbitmq_tls_url="amqps://localhost:$(<"$folder/tls-port")/%2f"
            return
        fi
        kill -0 "$(<"$folder/server.pid")" 2>/dev/null || break
        sleep 0.2
    done
    tail -n 40 "$folder/log/server" >&2
    fail "failed to start a private RabbitMQ on 127.0.0.1:$port"
}

# stop_rabbitmq FOLDER: ends the node and its port mapper at once; nothing of theirs is kept.
stop_rabbitmq() {
    local folder=$1 name pid
    for name in server epmd; do
        [[ -s $folder/$name.pid ]] || continue
        pid="$(<"$folder/$name.pid")"
        kill -KILL -- "-$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
}
