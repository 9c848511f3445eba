"""A room without a network: everything that the lab needs in one file, made by `servicelab bundle` where there is one.

`archive` is the file itself, `make` fills it, `use` takes it into Docker and onto the nodes of a kind cluster.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from ..errors import LabError
from ..state import state_dir
from . import archive

DEFAULT = "servicelab-bundle.tar.gz"


def given(option: Path | None) -> Path | None:
    """The bundle that an option or `$SERVICELAB_BUNDLE` names."""
    if option is not None:
        return option
    return Path(named).expanduser() if (named := os.environ.get("SERVICELAB_BUNDLE")) else None


def keep_programs_on_path() -> None:
    """Puts the kind that came with a bundle last on PATH, where the machine has none of its own."""
    kept = state_dir() / "bin"
    if kept.is_dir() and str(kept) not in os.environ.get("PATH", "").split(os.pathsep):
        os.environ["PATH"] = f"{os.environ.get('PATH', '')}{os.pathsep}{kept}"


def add_parser(commands) -> None:
    """Add `bundle` to the `servicelab` command."""
    text = (
        "Put the node image, the lessons' images, Python packages, kubectl, kind, and the lab itself into one file with the sum of each, "
        "for a room without a network. There: servicelab up --cluster kind --bundle FILE, or SERVICELAB_BUNDLE=FILE ./lab"
    )
    parser = commands.add_parser("bundle", help="all that a room without a network needs, in one file", description=text)
    parser.add_argument(
        "--out", type=Path, default=Path(DEFAULT), metavar="FILE",
        help="the file: .tar.gz, which everything can read, or .tar.zst, which is smaller (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--image", metavar="IMAGE", help="the node image; default $SERVICELAB_KIND_IMAGE or kindest/node:v1.34.4")
    parser.add_argument(
        "--python", action="append", metavar="VERSION", default=None,
        help=f"wheels for this Python, such as 3.12; repeatable (default: {archive.own_python()}, this one)",
    )  # fmt: skip
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from . import make
    from .archive import BundleError

    try:
        made = make.bundle(args.out, image=args.image, pythons=args.python)
    except BundleError as error:
        raise LabError(str(error)) from error
    print(f"✓ {made.out} ({made.out.stat().st_size >> 20} MB); its sum is beside it in {made.out.name}.sha256")
    print(f"  SHA-256 {made.digest}")
    print(f"  node image {made.node_image}; images for the lessons: {', '.join(made.lesson_images)}")
    print(f"  Python packages for {' '.join(made.machine)}, Python {', '.join(made.pythons)}")
    print("  In the room, with Docker and Python there:")
    print(f"    tar -xf {made.out.name} lab && cd lab && SERVICELAB_BUNDLE=../{made.out.name} ./lab")
    return 0
