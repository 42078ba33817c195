"""`run.py prepare`: builds the record stores of mixtures, so that training only reads."""

import argparse
import dataclasses
import json

from rich.console import Console

from instruct import gin_config
from instruct.cli import settings
from instruct.data import prepare, registry, store
from instruct.data.config import DataConfig
from instruct.errors import UserError

# Lengths matter to the stores of plain SeqIO tasks only, whose pipeline trims.
_LENGTHS = {"inputs": 512, "targets": 128}


def run(flags: argparse.Namespace) -> int:
    """Builds what is missing. Returns 1 if a store could not be built; the others are."""
    train = settings.load(flags)[gin_config.TRAIN]
    data: DataConfig | None = train.get("data")
    names = flags.mixture or ([data.mixture] if data else [])
    if not names:
        raise UserError("prepare what? Give --mixture=NAME, or a --gin_file that trains on one.")
    console = Console()
    failed = 0
    for name in names:
        config = dataclasses.replace(data, mixture=name) if data else DataConfig(name, _LENGTHS, 1)
        done = prepare.prepare(
            registry.resolve(name),
            config,
            workers=flags.workers,
            verify=flags.verify,
            console=None if flags.json else console,
        )
        failed += len(done.failed)
        if flags.json:
            print(json.dumps([dataclasses.asdict(entry) for entry in done.stores], indent=1))
        else:
            done.print_table(console)
            console.print(f"stores: {store.store_dir()}")
    return 1 if failed else 0
