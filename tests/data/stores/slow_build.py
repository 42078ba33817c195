"""A build of ten stores in two processes, slowly, for a test that kills it. No TensorFlow.

python -m tests.data.stores.slow_build SECONDS_A_ROW
"""

import collections
import dataclasses
import json
import sys
import time

from instruct.data.spec import Leaf, Resolved
from instruct.data.stores.prepare import prepare
from tests.data.toy import ToySource, toy_config, toy_spec
from tests.workspaces import workspace

NUM_TASKS = 10
ROWS = 600


@dataclasses.dataclass(frozen=True)
class SlowSource(ToySource):
    """Takes its time; its fingerprint does not tell how long, as the records are the same."""

    seconds: float = 0.0

    def fingerprint(self, workspace) -> str:
        return f"{self.tag} {self.size}"

    def records(self, workspace, split):
        for item in super().records(workspace, split):
            time.sleep(self.seconds)
            yield item


def main() -> None:
    """Builds what is missing and prints how many stores were there and how many were built."""
    seconds = float(sys.argv[1])
    leaves = []
    for number in range(NUM_TASKS):
        spec = toy_spec(SlowSource(f"slow{number}", ROWS + number, 7, seconds=seconds))
        leaves.append(
            Leaf(
                name=spec.leaf_name("zs_noopt"),
                rate=1 / NUM_TASKS,
                task=spec.name,
                mode="zs_noopt",
                family=spec.family,
                dataset=spec.dataset,
                category=spec.category,
                version=spec.version,
                records=None,
                splits=("train",),
                spec=spec,
            )
        )
    resolved = Resolved("slow", "train", tuple(leaves))
    done = prepare(workspace(), resolved, toy_config("slow"), ("train",), workers=2)
    done.check()
    print(json.dumps(collections.Counter(store.status for store in done.stores)))


if __name__ == "__main__":
    main()
