#!/bin/sh
# Turns secret files into settings, then becomes the command, so that signals reach it.
set -eu

read_secret() {
    # $1: file under /run/secrets, $2: setting. The content never shows in the process list.
    if [ -r "/run/secrets/$1" ]; then
        value=$(cat "/run/secrets/$1")
        export "$2=$value"
    elif [ -e "/run/secrets/$1" ]; then
        # Compose mounts the file with the owner and mode it has on the host.
        echo "error: user $(id -u) may not read the secret $1: make its file readable (chmod 444 secrets/$1)" >&2
        exit 1
    fi
}

read_secret redis_password METERBRIDGE_REDIS__PASSWORD
read_secret clickhouse_password METERBRIDGE_CLICKHOUSE__PASSWORD
read_secret ledger_url METERBRIDGE_LEDGER__URL
unset value

exec meterbridge "$@"
