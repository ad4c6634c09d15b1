"""Make the passwords of an installation: nothing here has one by default.

    python deployments/passwords.py                  # deployments/.env, for Compose
    python deployments/passwords.py --kubernetes     # deployments/kubernetes/secret.yaml

``.env`` is ``.env.example`` with a random value wherever that has none. A variable that this shell has is
taken as it is: the keys of a store that exists already, which --kubernetes wants. Files are
readable by their owner alone, and one that exists is never replaced, since databases and servers have its
passwords. Needs nothing but Python.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import sys
from pathlib import Path

HERE = Path(__file__).parent
KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


def password(name: str) -> str:
    """Return a value for a variable: what this shell has, else a random one of 256 bits."""
    given = os.environ.get(name)
    if given:
        return given
    return ("portrait:" if name == "PREFECT_API_AUTH_STRING" else "") + secrets.token_hex(32)


def env_file(example: str) -> str:
    """Return an example's lines, each variable without a value given one."""
    lines = [f"{line}{password(line[:-1])}" if line.endswith("=") else line for line in example.splitlines()]
    return "\n".join(lines) + "\n"


def secret_file() -> str:
    """Return the manifest of the Secret that Kubernetes' pods refer to."""
    unset = [name for name in KEYS if not os.environ.get(name)]
    if unset:
        sys.exit(f"{', '.join(unset)}: not set in this shell; export the keys of the store first")
    values = {name: password(name) for name in ("POSTGRES_PASSWORD", "PREFECT_API_AUTH_STRING", *KEYS)}
    # JSON's strings are YAML's.
    lines = [f"  {name}: {json.dumps(value)}" for name, value in values.items()]
    head = ["apiVersion: v1", "kind: Secret", "metadata:", "  name: portrait", "  namespace: portrait"]
    return "\n".join([*head, "type: Opaque", "stringData:", *lines]) + "\n"


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description="Make the passwords of an installation.")
    parser.add_argument("--kubernetes", action="store_true", help="a Secret's manifest instead of .env")
    parser.add_argument("--folder", type=Path, default=HERE, help="folder of the deployments")
    arguments = parser.parse_args()
    folder: Path = arguments.folder
    if arguments.kubernetes:
        target, text = folder / "kubernetes" / "secret.yaml", secret_file()
    else:
        target, text = folder / ".env", env_file((HERE / ".env.example").read_text())
    try:
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        sys.exit(f"{target} exists; its passwords are in use. Move it away to make others")
    with open(descriptor, "w") as file:
        file.write(text)
    print(f"wrote {target}")


if __name__ == "__main__":
    main()
