"""A small family of made-up tasks; imports no TensorFlow, so worker processes can read it."""

import collections
import dataclasses
import os
import zlib
from collections.abc import Mapping

from instruct.data.config import DataConfig
from instruct.data.spec import Leaf, TaskSpec
from instruct.prompts.record import Record
from instruct.prompts.render import Dropped
from instruct.prompts.template import Template, TemplateSet

TEMPLATES = TemplateSet(
    "toy",
    ("question",),
    truncate_field="question",
    zs_noopt=(Template("ask", "{question}\nAnswer:"), Template("say", "Q: {question}")),
    fs_noopt=(Template("shot", "{question}"),),
)
_names_made: collections.Counter[str] = collections.Counter()


def _name() -> str:
    """A name that no other test has, and the same whichever tests ran before.

    Draws are keyed by the task's name: one counter over all tests would make what a test draws
    depend on the order of the tests, and on which of them xdist gave to this process.
    """
    test = os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" ")[0]
    _names_made[test] += 1
    return f"{_names_made[test]:02d}{zlib.crc32(test.encode()):08x}"[:9]


@dataclasses.dataclass(frozen=True)
class ToySource:
    """`size` sums a split; every `drop_every`-th row is none."""

    tag: str
    size: int = 40
    drop_every: int = 0
    broken: bool = False
    words: int = 0
    splits: tuple[str, ...] = ("train", "validation")
    missing: str = ""

    def fingerprint(self, workspace) -> str:
        return repr(self)

    def available(self, workspace) -> str | None:
        return self.missing or None

    def records(self, workspace, split):
        offset = 0 if split == "train" else 1000
        for number in range(self.size):
            if self.broken and number == 3:
                raise RuntimeError("the file ends in the middle")
            if self.drop_every and number % self.drop_every == 0:
                yield Dropped("empty answer")
                continue
            value = number + offset
            question = f"[{self.tag}] {value} + 1 = ?" + " word" * (self.words and number % 30)
            yield Record(f"{split}/{number}", {"question": question}, str((value + 1) % 7))


def toy_spec(source: ToySource | None = None, **changes) -> TaskSpec:
    """A task under a name that no other test has."""
    name = f"t{_name()}"
    source = source or ToySource(name)
    values = {
        "name": f"toy.{name}",
        "family": "toy",
        "dataset": name,
        "category": "sums",
        "source": source,
        "templates": TEMPLATES,
        "splits": {split: split for split in ("train", "validation") if split in source.splits},
    }
    return TaskSpec(**(values | changes))


def toy_leaf(spec: TaskSpec, rate: float, *splits: str) -> Leaf:
    """The zero-shot leaf of a task in a mixture."""
    return Leaf(
        name=spec.leaf_name("zs_noopt"),
        rate=rate,
        task=spec.name,
        mode="zs_noopt",
        family=spec.family,
        dataset=spec.dataset,
        category=spec.category,
        version=spec.version,
        records=None,
        splits=splits,
        spec=spec,
    )


def fresh_name(kind: str) -> str:
    """A name that is not registered yet."""
    return f"toy_{kind}_{_name()}"


def eval_config(lengths: Mapping[str, int], vocabulary: str = "bytes", **changes) -> DataConfig:
    """What `eval_examples` reads of a configuration."""
    return DataConfig("any", lengths, batch_size=1, vocabulary=vocabulary, **changes)


def toy_config(mixture: str, **changes) -> DataConfig:
    """Bytes, short rows, small windows."""
    values = {
        "mixture": mixture,
        "feature_lengths": {"inputs": 128, "targets": 16},
        "batch_size": 4,
        "vocabulary": "bytes",
        "window_examples": 64,
    }
    return DataConfig(**(values | changes))
