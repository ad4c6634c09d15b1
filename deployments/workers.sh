#!/usr/bin/env bash
# Dask workers on this machine, until they are stopped: one per GPU (those that CUDA_VISIBLE_DEVICES names, else all),
# or where there is none PORTRAIT_WORKERS (default 1) of them.
#
#     source deployments/tls.sh FOLDER          # certificates: deployments/certificates.py
#     deployments/workers.sh tls://SCHEDULER:8786 [options of `dask worker`]
#
# On a network that is closed to others, PORTRAIT_ALLOW_PLAIN=1 lets it use a scheduler on another host without TLS.
set -euo pipefail
if [[ $# -lt 1 || $1 != *://* ]]; then
    echo "usage: $0 tls://SCHEDULER:PORT [options of dask worker]" >&2
    exit 2
fi
case "$1" in
    tls://* | tcp://127.0.0.1:* | tcp://localhost:* | tcp://\[::1\]:*) ;;
    *)
        if [[ -z ${PORTRAIT_ALLOW_PLAIN:-} ]]; then
            echo "$1 is without TLS: whoever is on the way to it can run code here. Make certificates with" \
                "deployments/certificates.py, source deployments/tls.sh and give tls://..., or set" \
                "PORTRAIT_ALLOW_PLAIN=1 on a network that is closed to others" >&2
            exit 2
        fi
        ;;
esac
# shellcheck source=environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

gpus=()
if [[ -n ${CUDA_VISIBLE_DEVICES:-} ]]; then
    IFS=, read -ra gpus <<< "$CUDA_VISIBLE_DEVICES"
elif [[ ! -v CUDA_VISIBLE_DEVICES ]] && command -v nvidia-smi > /dev/null; then
    mapfile -t gpus < <(nvidia-smi --query-gpu=index --format=csv,noheader)
fi

# One task per process at a time, so that a dead worker identifies its task. No memory limit by Dask: its default is
# the machine's memory divided by the number of cores, and it kills workers that take more.
options=(--nworkers 1 --nthreads 1 --memory-limit 0 --dashboard-address 127.0.0.1:0)
# The HTTP server answers health checks and nothing else.
[[ -v DASK_DISTRIBUTED__WORKER__HTTP__ROUTES ]] \
    || export DASK_DISTRIBUTED__WORKER__HTTP__ROUTES='["distributed.http.health"]'
# By default Dask takes a folder with a known name, which another user of this machine may have made, and imports from it.
scratch=$(mktemp -d "${TMPDIR:-/tmp}/portrait-dask-XXXXXXXX")
trap 'rm -rf "$scratch"' EXIT
export DASK_TEMPORARY_DIRECTORY="$scratch"
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"

workers=()
if [[ ${#gpus[@]} -gt 0 ]]; then
    for gpu in "${gpus[@]}"; do
        CUDA_VISIBLE_DEVICES=$gpu dask worker "$1" "${options[@]}" --resources GPU=1 "${@:2}" &
        workers+=($!)
    done
else
    for ((i = 0; i < ${PORTRAIT_WORKERS:-1}; i++)); do
        dask worker "$1" "${options[@]}" "${@:2}" &
        workers+=($!)
    done
fi

stop() { kill -TERM "${workers[@]}" 2> /dev/null || true; }
trap stop TERM INT
# When one worker ends, all are stopped: the caller of this script starts them all again.
code=0
wait -n || code=$?
stop
wait || true
exit "$code"
