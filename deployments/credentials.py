"""Store variables of this shell in secret blocks of the Prefect server, for the runs of the pool portrait.

    python deployments/credentials.py AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY     # store or change them
    python deployments/credentials.py --forget AWS_SECRET_ACCESS_KEY

The pool's template names the blocks, ``{{ prefect.blocks.secret.portrait-aws-access-key-id }}``; the worker
that starts a run puts their values into its environment. They are not named in prefect.yaml, since
`prefect deploy` would write the values themselves into the deployments.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from prefect.blocks.system import Secret
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolUpdate

POOL = "portrait"


def block_of(variable: str) -> str:
    """Return the name of a variable's secret block."""
    return "portrait-" + variable.lower().replace("_", "-")


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description="Store variables of this shell in secret blocks.")
    parser.add_argument("variables", nargs="+", metavar="VARIABLE", help="name of an environment variable")
    parser.add_argument("--forget", action="store_true", help="delete their blocks instead")
    arguments = parser.parse_args()
    unset = [name for name in arguments.variables if name not in os.environ]
    if unset and not arguments.forget:
        sys.exit(f"{', '.join(unset)}: not set in this shell; export them first")
    with get_client(sync_client=True) as client:
        template: dict[str, Any] = client.read_work_pool(POOL).base_job_template
        environment = template["variables"]["properties"]["env"].setdefault("default", {})
        for name in arguments.variables:
            if arguments.forget:
                environment.pop(name, None)
            else:
                Secret(value=os.environ[name]).save(block_of(name), overwrite=True)
                environment[name] = f"{{{{ prefect.blocks.secret.{block_of(name)} }}}}"
        client.update_work_pool(POOL, WorkPoolUpdate(base_job_template=template))
    for name in arguments.variables:
        if arguments.forget:  # last, since a run whose template names a missing block cannot start
            Secret.delete(block_of(name))


if __name__ == "__main__":
    main()
