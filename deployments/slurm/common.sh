# shellcheck shell=bash
# Sourced by the batch scripts. PORTRAIT_HOME is the checkout, on a file system that all nodes see, with its .venv
# (`uv sync`); by default the folder in which sbatch was called.
cd "${PORTRAIT_HOME:=$SLURM_SUBMIT_DIR}" || exit 1
export PORTRAIT_HOME PATH="$PORTRAIT_HOME/.venv/bin:$PATH"
# shellcheck source=../environment.sh
source "$PORTRAIT_HOME/deployments/environment.sh"

# run_until_warned COMMAND...: runs it. On Slurm's warning (#SBATCH --signal) it gets SIGTERM and keeps a state
# to continue from, and the job is queued again. A job that is cancelled or fails is not.
run_until_warned() {
    local warned="" code=0
    # First the trap: the warning may come as soon as the command runs.
    trap 'warned=yes; kill -TERM "${!:-}" 2> /dev/null || true' USR1
    "$@" &
    local command=$!
    wait "$command" || code=$?
    # `wait` returns early for a signal; the command may still be running.
    while kill -0 "$command" 2> /dev/null; do
        code=0
        wait "$command" || code=$?
    done
    trap - USR1
    if [[ -n $warned && $code -ne 0 ]]; then
        scontrol requeue "$SLURM_JOB_ID"
    fi
    return "$code"
}
