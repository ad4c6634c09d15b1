"""Make certificates with which a Dask scheduler, its workers and its clients recognise each other.

    python deployments/certificates.py FOLDER [--days 365] [--names HOST ...]

FOLDER, which must not exist yet, then holds ``ca.pem``, the authority; ``dask.pem``, the certificate that all
processes of the cluster present; and ``dask-key.pem``, its key. Whoever has the key can run any code in the
cluster. The authority's own key is kept nowhere: to admit nobody but the holders of a new key, make a new
folder and start the cluster again with it. Dask compares the authority and not the names of hosts, so one
certificate serves all hosts; other programs may want to find the names in it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from flows.engine.certificates import make_certificates


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description="Make certificates for a Dask cluster.")
    parser.add_argument("folder", type=Path, help="folder to make; it must not exist")
    parser.add_argument("--days", type=int, default=365, help="days of validity (default 365)")
    parser.add_argument(
        "--names",
        nargs="+",
        default=[],
        metavar="HOST",
        help="names and addresses that the certificate mentions",
    )
    arguments = parser.parse_args()
    if not 1 <= arguments.days <= 3650:
        sys.exit(f"--days {arguments.days}: give a number from 1 to 3650")
    try:
        end = make_certificates(arguments.folder, arguments.days, arguments.names)
    except FileExistsError:
        sys.exit(f"{arguments.folder} exists; give another folder, or remove it to replace what it holds")
    except (OSError, ValueError) as error:
        sys.exit(f"no certificates were made: {error}")
    where = arguments.folder.resolve()
    print(
        f"{where} holds ca.pem, dask.pem and dask-key.pem, valid until {end:%Y-%m-%d %H:%M} UTC.\n"
        "dask-key.pem lets its reader run any code in the cluster: keep the folder closed to others, and\n"
        "copy it to every host of the cluster. Before a scheduler, workers or portrait start on a host:\n"
        f"    source deployments/tls.sh {where}\n"
        "and give portrait --set runner.kind=address --set runner.address=tls://HOST:8786"
    )


if __name__ == "__main__":
    main()
