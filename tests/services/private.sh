#!/usr/bin/env bash
# A PostgreSQL, RabbitMQ or MLflow that one test has to itself, so that it may be ended and started again. Used by `refit_tests::private`.
#
#   tests/services/private.sh postgres start FOLDER        prints its URL; what it has committed survives a crash
#   tests/services/private.sh postgres crash FOLDER        ends it without a goodbye and starts it again
#   tests/services/private.sh postgres stop FOLDER
#   tests/services/private.sh rabbitmq start FOLDER        prints its URL
#   tests/services/private.sh rabbitmq crash FOLDER        kills the node and starts it again
#   tests/services/private.sh rabbitmq cut FOLDER          lets the broker close every connection
#   tests/services/private.sh rabbitmq stop FOLDER
#   tests/services/private.sh mlflow start FOLDER          prints its URL; started again, it has its port and its data
#   tests/services/private.sh mlflow stop FOLDER
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
source common.sh
source postgres.sh
source rabbitmq.sh
source mlflow.sh

folder=$3
case "$1 $2" in
"postgres start")
    start_postgres "$folder" crash-safe
    printf '%s\n' "$postgres_url"
    ;;
"postgres crash") crash_postgres "$folder" ;;
"postgres stop") stop_postgres "$folder" ;;
"rabbitmq start")
    launch_rabbitmq "$folder"
    await_rabbitmq "$folder"
    printf '%s\n' "$rabbitmq_url"
    ;;
"rabbitmq crash")
    stop_rabbitmq "$folder"
    launch_rabbitmq "$folder"
    await_rabbitmq "$folder"
    ;;
"rabbitmq cut") "$folder/ctl" close_all_connections "cut by a test" >/dev/null ;;
"rabbitmq stop") stop_rabbitmq "$folder" ;;
"mlflow start")
    need_mlflow
    launch_mlflow "$folder"
    await_mlflow "$folder"
    printf '%s\n' "$mlflow_url"
    ;;
"mlflow stop") stop_mlflow "$folder" ;;
*) fail "private.sh does not know $1 $2" ;;
esac
