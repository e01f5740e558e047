"""Sign a bundle with your own private key, offline (OpenSSF model signing, key mode).

The signature is the file model.sig in the bundle's folder. Copies and packed wheels keep it; a
command that changes the bundle removes it. If the key has a password, set LAYERGUARD_KEY_PASSWORD
to it. To create keys:

  openssl ecparam -name prime256v1 -genkey -noout -out private.pem
  openssl ec -in private.pem -pubout -out public.pem
"""

import os
from argparse import ArgumentParser, Namespace
from pathlib import Path

from layerguard.runtime.bundle.files import SIGNATURE
from layerguard.runtime.bundle.signing import sign
from layerguard.runtime.cli import options
from layerguard.runtime.cli.streams import show


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the command's arguments."""
    options.add_written_bundle(parser)
    parser.add_argument(
        "--key", type=Path, required=True, metavar="PRIVATE", help="private key, in PEM"
    )


def run(arguments: Namespace) -> int:
    """Write the signature and print its path."""
    bundle = sign(arguments.bundle, arguments.key, os.environ.get("LAYERGUARD_KEY_PASSWORD"))
    show(f"wrote {bundle.path / SIGNATURE}, of bundle {bundle.id}")
    return 0
