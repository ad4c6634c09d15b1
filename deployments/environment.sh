# shellcheck shell=bash
# Sourced: sets what settings.env says, as far as the user has not.
while IFS='=' read -r name value; do
    case "$name" in '' | '#'*) continue ;; esac
    [[ -v "$name" ]] || export "$name=$value"
done < "$(dirname "${BASH_SOURCE[0]}")/settings.env"
