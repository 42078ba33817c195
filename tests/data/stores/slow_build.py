"""A build of ten stores in two processes, slowly, for a test that kills it. No TensorFlow.

python -m tests.data.stores.slow_build SECONDS_A_ROW [HELD_FILE MOST]

With HELD_FILE the build does not end, however late it is killed: the second store that is missing
stays half built, which the file says, and no more than MOST others are finished.
"""

import collections
import dataclasses
import json
import pathlib
import sys
import time

from instruct.data.spec import Resolved
from instruct.data.stores.prepare import prepare
from instruct.data.stores.store import leaf_manifest
from tests.data.toy import ToySource, toy_config, toy_leaf, toy_spec
from tests.workspaces import workspace

NUM_TASKS = 10
ROWS = 600


@dataclasses.dataclass(frozen=True)
class SlowSource(ToySource):
    """Takes its time; its fingerprint does not tell how long, as the records are the same."""

    seconds: float = 0.0
    held_file: str = ""

    def fingerprint(self, workspace) -> str:
        return f"{self.tag} {self.size}"

    def records(self, workspace, split):
        for number, item in enumerate(super().records(workspace, split)):
            if self.held_file and number == ROWS // 2:
                pathlib.Path(self.held_file).touch()
                time.sleep(1000)  # longer than any test waits
            time.sleep(self.seconds)
            yield item


def main() -> None:
    """Builds what is missing and prints how many stores were there and how many were built."""
    seconds, hold = float(sys.argv[1]), sys.argv[2:]
    leaves, num_missing, config = [], 0, toy_config("slow")
    for number in range(NUM_TASKS):
        source = SlowSource(f"slow{number}", ROWS + number, 7, seconds=seconds)
        spec = toy_spec(source)
        leaf = toy_leaf(spec, 1 / NUM_TASKS, "train")
        if hold and leaf_manifest(workspace(), leaf, "train", config)[0] is None:
            num_missing += 1
            if num_missing == 2 or num_missing > int(hold[1]) + 1:
                held = dataclasses.replace(source, held_file=hold[0])
                leaf = dataclasses.replace(leaf, spec=dataclasses.replace(spec, source=held))
        leaves.append(leaf)
    resolved = Resolved("slow", "train", tuple(leaves))
    done = prepare(workspace(), resolved, config, ("train",), workers=2)
    done.check()
    print(json.dumps(collections.Counter(store.status for store in done.stores)))


if __name__ == "__main__":
    main()
