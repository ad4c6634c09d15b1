# shellcheck shell=bash
# Source this file with a folder that certificates.py made: `source deployments/tls.sh FOLDER`. Dask's schedulers,
# workers and clients in this shell then present its certificate, and refuse whoever has none of the same authority.
[[ -r ${1:-}/dask-key.pem ]] || { echo "${1:-no folder} holds no certificates; make them with deployments/certificates.py" >&2; return 1; }
tls=$(cd "$1" && pwd)
export DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION=True
export DASK_DISTRIBUTED__COMM__TLS__CA_FILE="$tls/ca.pem"
for role in SCHEDULER WORKER CLIENT; do
    export "DASK_DISTRIBUTED__COMM__TLS__${role}__CERT=$tls/dask.pem" "DASK_DISTRIBUTED__COMM__TLS__${role}__KEY=$tls/dask-key.pem"
done
unset tls role
