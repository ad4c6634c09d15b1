# shellcheck shell=bash
# Source this file: sets the variables of settings.env that the user has not set.
while IFS='=' read -r name value; do
    case "$name" in '' | '#'*) continue ;; esac
    [[ -v "$name" ]] || export "$name=$value"
done < "$(dirname "${BASH_SOURCE[0]}")/settings.env"
