"""The workspace of a test: its private folders, or what its variables say."""

import dataclasses
from typing import Any

from instruct.cli.environment import workspace_from_environment
from instruct.workspace import Workspace


def workspace(**fields: Any) -> Workspace:
    """As the command line would make it here and now, with some fields set otherwise."""
    return dataclasses.replace(workspace_from_environment(), **fields)
