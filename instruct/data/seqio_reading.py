"""SeqIO's own pipelines as input: a plain task's examples for a store, a mixture's packed rows.

What a user's module registers runs unchanged in TensorFlow, once, when its store is built. The
mixture as SeqIO itself feeds it (`feed="seqio"`) is the reference that ours is compared with.
"""

import contextlib
import hashlib
import inspect
from collections.abc import Iterator, Mapping

import numpy as np
import seqio
import tensorflow as tf

from instruct import batch
from instruct.data.config import DataConfig
from instruct.data.features import decoder_features
from instruct.data.seqio_bridge import FEATURES, from_seqio
from instruct.data.token_record import TokenRecord
from instruct.data.vocab import Vocabulary, load_vocabulary
from instruct.data.window import COUNTS, Window
from instruct.errors import UserError
from instruct.prompts.render import Dropped

_WINDOW_ROWS = 256


def plain_fingerprint(name: str) -> str:
    """Changes with the task's source, files, steps or vocabulary, as far as these can tell."""
    task = seqio.TaskRegistry.get(name)
    parts = [repr(task.source), str(task.source)]
    for step in task.preprocessors:
        inner = getattr(step, "func", step)
        parts.append(getattr(inner, "__qualname__", repr(type(inner))))
        # Built-in steps, and those defined where no source is kept, have only their name.
        with contextlib.suppress(OSError, TypeError):
            parts.append(inspect.getsource(inner))
    for split in sorted(task.splits or ()):
        for shard in task.source.list_shards(split):
            parts.append(_file_stamp(str(shard)))
    for name, feature in task.output_features.items():
        vocabulary = getattr(feature, "vocabulary", None)
        parts.append(f"{name} {from_seqio(vocabulary) or type(vocabulary).__name__} {feature}")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _file_stamp(path: str) -> str:
    if not tf.io.gfile.exists(path):
        return path
    found = tf.io.gfile.stat(path)
    return f"{path} {found.length} {found.mtime_nsec}"


def check_plain_vocabulary(task: seqio.Task, vocabulary: Vocabulary) -> None:
    """Raises UserError unless the task's ids mean what the run's vocabulary says."""
    for name in FEATURES:
        if name not in task.output_features:
            raise UserError(
                f"seqio task {task.name!r} has no output feature {name!r}; an encoder-decoder "
                f"needs 'inputs' and 'targets', it has {', '.join(task.output_features)}"
            )
        theirs = from_seqio(getattr(task.output_features[name], "vocabulary", None))
        if theirs is None:
            continue  # a vocabulary class of the user's own: its ids are taken as they are
        if load_vocabulary(theirs).fingerprint != vocabulary.fingerprint:
            raise UserError(
                f"seqio task {task.name!r} tokenises {name!r} with {theirs!r}, this run uses "
                f"{vocabulary.spec!r}. Set VOCABULARY to {theirs!r}, or change the task's features"
            )


def token_records(
    name: str, split: str, lengths: Mapping[str, int], vocabulary: Vocabulary, seed: int = 0
) -> Iterator[TokenRecord | Dropped]:
    """Runs a plain task's TensorFlow pipeline once over a split, in its own order.

    Raises:
        UserError: the task tokenises with another vocabulary, or lacks a feature.
    """
    task = seqio.TaskRegistry.get(name)
    check_plain_vocabulary(task, vocabulary)
    dataset = task.get_dataset(
        sequence_length=dict(lengths), split=split, shuffle=False, seed=seed, num_epochs=1
    )
    vocabularies = {name: task.output_features[name].vocabulary for name in FEATURES}
    for number, example in enumerate(dataset.as_numpy_iterator()):
        ids = {name: [int(i) for i in example.pop(name)] for name in FEATURES}
        if not any(i != 1 for i in ids["targets"]):
            yield Dropped("empty target")
            continue
        texts = {}
        for name in FEATURES:
            text = example.get(f"{name}_pretokenized")
            if not isinstance(text, bytes):
                text = str(vocabularies[name].decode(ids[name])).encode()
            texts[name] = text.decode("utf-8", errors="replace")
        yield TokenRecord(
            str(number), ids["inputs"], ids["targets"], texts["inputs"], texts["targets"], example
        )


def seqio_windows(
    config: DataConfig, host: int, num_hosts: int, num_leaves: int, start: int
) -> Iterator[Window]:
    """Rows of SeqIO's pipeline (sampling, shuffle buffers, next-fit packing), 256 a window.

    To continue at window `start` the rows before it are made and thrown away.
    """
    dataset = seqio.get_dataset(
        config.mixture,
        dict(config.feature_lengths),
        seqio.EncDecFeatureConverter(pack=config.packing != "none"),
        dataset_split=config.split,
        shuffle=True,
        num_epochs=None,
        shard_info=seqio.ShardInfo(host, num_hosts) if num_hosts > 1 else None,
        verbose=False,
        seed=config.seed,
    )
    rows = dataset.skip(start * _WINDOW_ROWS).batch(_WINDOW_ROWS).as_numpy_iterator()
    for made in rows:
        yield _seqio_window(made, num_leaves)


def _seqio_window(made: dict[str, np.ndarray], num_leaves: int) -> Window:
    rows = {key: np.asarray(value, dtype=np.int32) for key, value in made.items()}
    sides = (
        (batch.ENCODER_INPUT_TOKENS, batch.ENCODER_SEGMENT_IDS, batch.ENCODER_POSITIONS),
        (batch.DECODER_TARGET_TOKENS, batch.DECODER_SEGMENT_IDS, batch.DECODER_POSITIONS),
    )
    for tokens, segments, positions in sides:
        if segments not in rows:  # not packed: one example a row
            rows[segments] = (rows[tokens] != 0).astype(np.int32)
            rows[positions] = np.arange(rows[tokens].shape[1], dtype=np.int32) * rows[segments]
    # SeqIO's packing does not keep which task an example came from.
    rows[batch.DECODER_TASK_IDS] = np.zeros_like(rows[batch.DECODER_TARGET_TOKENS])
    num_rows = rows[batch.DECODER_TARGET_TOKENS].shape[0]
    return Window(
        rows=decoder_features(rows),
        row_ends=np.zeros(num_rows, dtype=np.int64),
        example_leaves=np.zeros(0, dtype=np.int64),
        counts=np.zeros((len(COUNTS), num_leaves), dtype=np.int64),
        dropped={},
    )
