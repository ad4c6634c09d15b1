"""Pin the images that these files start from or run, by digest: nothing starts before that was done.

    python deployments/pin.py                                    # asks the registries; again for newer ones
    python deployments/pin.py --program registry/portrait:cuda   # Kubernetes' image of the program, too

A tag names today one image and tomorrow another; a digest names one for ever. Writes ``@sha256:...`` behind
each tag in ``images/``, ``compose.yaml`` and ``kubernetes/``: look at what has changed, and commit it. Asks
by ``crane digest`` or ``docker buildx imagetools inspect``, whichever is installed. Needs nothing but Python.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
REFERENCE = re.compile(
    r"(?P<before>^FROM |\bimage: )(?P<name>[\w./:-]+:[\w.-]+)@sha256:[\w.-]+(?![\w.-]| +# the program)",
    re.MULTILINE,
)
"""An image with a tag and a digest, or with what stands in a digest's place before the first pin."""
PROGRAM = re.compile(r"(?P<before>\bimage: )(?P<name>\S+)(?P<after> +# the program)$", re.MULTILINE)


def digest_of(image: str) -> str:
    """Return the digest of an image with a tag, as its registry says."""
    if shutil.which("crane"):
        command = ["crane", "digest", image]
    elif shutil.which("docker"):
        command = ["docker", "buildx", "imagetools", "inspect", image, "--format", "{{.Manifest.Digest}}"]
    else:
        sys.exit("neither crane nor docker is installed; one of them must ask the registries")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    digest = done.stdout.strip()
    if done.returncode or not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
        sys.exit(f"no digest of {image}: {done.stderr.strip() or digest or 'nothing was answered'}")
    return digest


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description="Pin images by digest.")
    parser.add_argument("--program", metavar="IMAGE:TAG", help="Kubernetes' image of this program")
    parser.add_argument("--folder", type=Path, default=HERE, help="folder of the deployments")
    arguments = parser.parse_args()
    folder: Path = arguments.folder
    files = [
        *folder.glob("images/*.Dockerfile"),
        *folder.glob("compose*.yaml"),
        *folder.rglob("kubernetes/**/*.yaml"),
    ]
    texts = {path: path.read_text() for path in sorted(set(files))}
    found = (match["name"] for text in texts.values() for match in REFERENCE.finditer(text))
    # All are asked before anything is written.
    pinned = {name: f"{name}@{digest_of(name)}" for name in sorted(set(found)) if name != arguments.program}
    program = arguments.program and f"{arguments.program}@{digest_of(arguments.program)}"
    for path, text in texts.items():
        text = REFERENCE.sub(lambda match: match["before"] + pinned.get(match["name"], match["name"]), text)
        if program:
            text = PROGRAM.sub(lambda match: match["before"] + program + match["after"], text)
        path.write_text(text)
    print("\n".join([*pinned.values(), *([program] if program else [])]))


if __name__ == "__main__":
    main()
