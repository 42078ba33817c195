"""A small suite with every kind of metric: ours, plain SeqIO tasks, one that fails."""

import dataclasses
import statistics

import seqio

from instruct.data import registry
from instruct.data.seqio.bridge import seqio_vocabulary
from instruct.data.spec import TaskSpec
from instruct.eval import metrics
from instruct.prompts.record import Record
from instruct.prompts.template import Template, TemplateSet

SUITE = "evalsuite.all"
OPTIONS = ("red", "green", "blue")


@dataclasses.dataclass(frozen=True)
class ColourSource:
    """Questions with three options; the answer is "green" half of the time."""

    size: int = 12
    splits: tuple[str, ...] = ("train", "test")

    def fingerprint(self, workspace) -> str:
        return repr(self)

    def available(self, workspace) -> str | None:
        return None

    def records(self, workspace, split):
        for number in range(self.size):
            index = (1, 0, 1, 2)[number % 4]
            fields = {"question": f"{split} colour {number}?"}
            yield Record(f"{split}/{number}", fields, OPTIONS[index], OPTIONS, index)


def spec(name: str, modes: dict[str, float], **changes) -> TaskSpec:
    templates = TemplateSet(
        "colours",
        ("question",),
        truncate_field="question",
        zs_opt=(Template("pick", "{question}\n{options}"),),
        zs_noopt=(Template("ask", "{question}"),),
    )
    values = {
        "name": name,
        "family": "evalsuite",
        "dataset": name,
        "category": "colours",
        "source": ColourSource(),
        "templates": templates,
        "modes": modes,
        "metric_fns": [metrics.exact_match, metrics.squad],
        "splits": {"train": "train", "test": "test"},
    }
    return TaskSpec(**(values | changes))


def first_letters(decoded, example, is_target):
    """Reads most of what a random model writes as one of a few answers."""
    return decoded.strip()[:1]


def median_length(targets, predictions):
    """A metric that is no mean of single examples."""
    return {"median_length": statistics.median([len(text) for text in predictions])}


def mean_score(targets, scores):
    return {"mean_score": seqio.metrics.Scalar(sum(scores) / len(scores))}


def score_seen(targets, predictions, aux_values):
    return {"aux": float(len(aux_values["scores"]) == len(predictions)), "note": "text"}


def votes_seen(targets, predictions, aux_values):
    return {"votes": float(max(aux_values["votes"]))}


def broken(targets, predictions):
    raise ZeroDivisionError("a metric with a defect")


def shout(decoded, example, is_target):
    """Postprocessing that needs the raw example, and differs for target and prediction."""
    word = example["word"].decode()
    return f"{word}{decoded.upper()}" if is_target else f"{word}{decoded}"


def shouted_match(targets, predictions):
    right = [t.lower() == p.lower() for t, p in zip(targets, predictions)]
    assert all(t.startswith("w") and t[2:].isupper() for t in targets)
    return {"shouted_match": 100.0 * sum(right) / len(right)}


def _plain(name: str, metric_fns, postprocess_fn=None, splits=("validation",)) -> None:
    import tensorflow as tf

    def generate(split, shuffle_files, seed=None):
        rows = {
            "inputs": [f"plain {split} {i}" for i in range(9)],
            "targets": ["yes" if i % 3 else "no" for i in range(9)],
            "word": [f"w{i}" for i in range(9)],
        }
        return tf.data.Dataset.from_tensor_slices(rows)

    feature = seqio.Feature(seqio_vocabulary("bytes"), add_eos=True)
    seqio.TaskRegistry.add(
        name,
        source=seqio.FunctionDataSource(generate, splits=list(splits)),
        preprocessors=[seqio.preprocessors.tokenize, seqio.preprocessors.append_eos],
        output_features={"inputs": feature, "targets": feature},
        metric_fns=metric_fns,
        postprocess_fn=postprocess_fn,
    )


def register() -> None:
    """Registers the suite once."""
    if SUITE in registry.mixture_names():
        return
    registry.add_task(spec("evalsuite.trained", {"zs_noopt": 1.0, "zs_opt": 1.0}))
    registry.add_task(spec("evalsuite.new", {"zs_noopt": 1.0}))
    # As `trained` under another name: a published protocol on the same examples.
    again = {"dataset": "evalsuite.trained", "ranked": True}
    registry.add_task(spec("evalsuite.ranked", {"zs_opt": 1.0}, **again))
    registry.add_task(spec("evalsuite.defect", {"zs_noopt": 1.0}, metric_fns=[broken]))
    _plain("evalplain_all_kinds", [median_length, mean_score, score_seen])
    _plain("evalplain_shout", [shouted_match], shout)
    _plain("evalplain_no_metric", [])
    _plain("evalplain_letters", [metrics.exact_match, votes_seen], first_letters)
    _plain("evalplain_train_only", [metrics.exact_match], splits=("train",))
    names = ("trained", "new", "defect")
    plain = ("all_kinds", "shout", "no_metric", "train_only")
    leaves = [f"evalsuite.{name}" for name in names] + [f"evalplain_{name}" for name in plain]
    registry.add_mixture(SUITE, dict.fromkeys(leaves, 1.0))
