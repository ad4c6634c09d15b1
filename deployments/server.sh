#!/usr/bin/env bash
# Prefect's server, for those alone who know PREFECT_API_AUTH_STRING: everything but its health check wants it, the
# pages ask for it, web pages of other addresses get no answer (CORS), and changes need a token that only a client of
# this server has (CSRF). Without these, any page in a browser of this machine could let a worker run a command.
#
#     deployments/server.sh [options of `prefect server start`]
#
# PREFECT_SERVER_UI_API_URL is where a browser finds the API, by default http://127.0.0.1:4200/api.
set -euo pipefail
if [[ ! ${PREFECT_API_AUTH_STRING:-} =~ ^[^:]+:.{16,}$ ]]; then
    echo "PREFECT_API_AUTH_STRING must be NAME:PASSWORD with a password of 16 characters or more;" \
        "deployments/passwords.py makes one" >&2
    exit 2
fi
# shellcheck source=environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

export PREFECT_SERVER_API_AUTH_STRING="$PREFECT_API_AUTH_STRING"
export PREFECT_SERVER_UI_API_URL="${PREFECT_SERVER_UI_API_URL:-http://127.0.0.1:4200/api}"
export PREFECT_SERVER_CORS_ALLOWED_ORIGINS="${PREFECT_SERVER_UI_API_URL%/api}"
export PREFECT_SERVER_CSRF_PROTECTION_ENABLED=true
export PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT=false
# The server writes its pages before it shows them, and shows those that it finds: in a folder of this user's, since
# where the program is installed may be read-only, and others may write into /tmp.
pages="${XDG_CACHE_HOME:-$HOME/.cache}/portrait-reenactment/prefect-pages"
export PREFECT_SERVER_UI_STATIC_DIRECTORY="${PREFECT_SERVER_UI_STATIC_DIRECTORY:-$pages}"
exec prefect server start "$@"
