#!/usr/bin/env bash
# Registers the work pool, every deployment of prefect.yaml and the automations with the Prefect server at
# PREFECT_API_URL, which wants PREFECT_API_AUTH_STRING. Can be repeated at any time. Run it where the program is installed.
set -euo pipefail
here="$(dirname "${BASH_SOURCE[0]}")"
: "${PREFECT_API_URL:?name the server, for example PREFECT_API_URL=http://127.0.0.1:4200/api}"
python -c 'import sys; from flows.engine.environment import prefect_server_refuses; sys.exit(prefect_server_refuses(sys.argv[1]))' \
    "$PREFECT_API_URL"

prefect work-pool inspect portrait > /dev/null 2>&1 || prefect work-pool create portrait --type process
prefect work-pool set-concurrency-limit portrait "${PORTRAIT_RUNS:-64}"
prefect --no-prompt deploy --all --prefect-file "$here/prefect.yaml"
for file in "$here"/automations/*.yaml; do
    name="$(sed -n 's/^name: //p' "$file")"
    prefect automation inspect "$name" > /dev/null 2>&1 || prefect automation create --from-file "$file"
done
