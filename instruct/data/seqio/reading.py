"""SeqIO's own pipelines as input: a plain task's examples for a store, a mixture's packed rows.

Tasks that a user's module registers run unchanged in TensorFlow, once, when their stores are built.
A mixture fed by SeqIO itself (`feed="seqio"`) is the reference for our feed.
"""

import contextlib
import hashlib
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import seqio
import tensorflow as tf

from instruct import batch
from instruct.data.config import DataConfig
from instruct.data.features import decoder_features
from instruct.data.feed.window import COUNTS, Window
from instruct.data.seqio.bridge import FEATURES, from_seqio, use_workspace
from instruct.data.seqio.code_fingerprint import CodeFingerprint
from instruct.data.sources.files import file_digest
from instruct.data.token_record import TokenRecord
from instruct.data.vocab import Vocabulary, load_vocabulary
from instruct.errors import UserError
from instruct.prompts.render import Dropped
from instruct.workspace import Workspace

_WINDOW_ROWS = 256

# Prefix of fingerprints of plain tasks; the number changes with the algorithm.
PLAIN_KIND = "plain3-"
# Attributes of a source that change no record, or are hashed in sorted order (splits).
_SOURCE_NOISE = ("_num_input_examples", "_caching_permitted", "_splits")
# Above this many bytes, files are identified by size and time instead of content.
_MOST_HASHED_BYTES = 1 << 30
# Attribute of a task that caches `_code_fingerprint`.
_CACHED = "instruct_code_fingerprint"

_log = logging.getLogger(__name__)


class PlainTaskSource:
    """A plain seqio task's pipeline at a run's lengths, as the source of its stores.

    Works only in the process that registered the task.
    """

    def __init__(self, task: str, config: DataConfig) -> None:
        self.task = task
        self.config = config
        self._warned = False  # about what the fingerprint does not cover

    @property
    def splits(self) -> Sequence[str]:
        return tuple(seqio.TaskRegistry.get(self.task).splits)

    def fingerprint(self, workspace: Workspace) -> str:
        """`plain_fingerprint` of the task."""
        return plain_fingerprint(self.task)

    def available(self, workspace: Workspace) -> str | None:
        """None: the pipeline itself raises if files are missing."""
        return None

    def records(self, workspace: Workspace, split: str) -> Iterator[Any]:
        """The split's `TokenRecord`s; warns once about what the fingerprint does not cover."""
        _, unseen = _code_fingerprint(seqio.TaskRegistry.get(self.task))
        if unseen and not self._warned:
            self._warned = True
            _log.warning(
                "seqio task %r: a change of its code rebuilds its store, but the code does not "
                "show %s. After changing that, set another version (source.version = '2' on the "
                "task's source) to rebuild the store",
                self.task,
                "; ".join(unseen),
            )
        vocabulary = load_vocabulary(self.config.vocabulary)
        lengths, seed = self.config.feature_lengths, self.config.seed
        yield from token_records(self.task, split, lengths, vocabulary, seed)


def plain_fingerprint(name: str) -> str:
    """Hash of a task's source, files, preprocessors, features and vocabularies.

    Equal in every process for an unchanged task (see `instruct.data.seqio.code_fingerprint`).
    `postprocess_fn` and `metric_fns` do not count.
    """
    task = seqio.TaskRegistry.get(name)
    digest = hashlib.sha256(_code_fingerprint(task)[0].encode())
    for split in sorted(task.splits or ()):
        digest.update(f"{split}\n".encode())
        for stamp in _file_stamps([str(shard) for shard in task.source.list_shards(split)]):
            digest.update(f"{stamp}\n".encode())
    return PLAIN_KIND + digest.hexdigest()


def _code_fingerprint(task: seqio.Task) -> tuple[str, tuple[str, ...]]:
    """(hash, phrases for what it does not cover) of a task without its files.

    Cached on the task, since its code may hold other objects after it has run, such as a memo.
    """
    if _CACHED not in vars(task):
        fingerprint = CodeFingerprint(_vocabulary_content)
        for step in task.preprocessors:
            fingerprint.add(step)
        fingerprint.add_state(task.source, without=_SOURCE_NOISE)
        for name, feature in task.output_features.items():
            fingerprint.add(name)
            fingerprint.add(feature)
        vars(task)[_CACHED] = fingerprint.hexdigest(), tuple(fingerprint.unseen)
    return vars(task)[_CACHED]


def _vocabulary_content(value: Any) -> Any:
    """A SentencePiece vocabulary as a hash of its file, wherever that is, and its options."""
    if not isinstance(value, seqio.SentencePieceVocabulary):
        return value
    file = value.sentencepiece_model_file
    with contextlib.suppress(tf.errors.OpError), tf.io.gfile.GFile(file, "rb") as stream:
        file = hashlib.sha256(stream.read()).hexdigest()
    options = tuple(
        (name, option)
        for name, option in sorted(vars(value).items())
        if (option is None or isinstance(option, bool | int | float | str))
        and name not in ("_sentencepiece_model_file", "_model")
    )
    overrides = str(getattr(value, "_normalizer_spec_overrides", ""))
    return (type(value), file, value.extra_ids, options, overrides)


def _file_stamps(paths: Sequence[str]) -> list[str]:
    """Files by name and content; by size and time if they are large or in a bucket."""
    is_file = {path: tf.io.gfile.exists(path) and not tf.io.gfile.isdir(path) for path in paths}
    stamps = [path for path in paths if not is_file[path]]
    files = [(path, tf.io.gfile.stat(path)) for path in paths if is_file[path]]
    large = sum(stat.length for _, stat in files) > _MOST_HASHED_BYTES
    for path, stat in files:
        content = f"{stat.length} {stat.mtime_nsec}"
        if not large and "://" not in path:
            content = file_digest(Path(path)).hex()
        stamps.append(f"{os.path.basename(path)} {content}")
    return stamps


def check_plain_vocabulary(task: seqio.Task, vocabulary: Vocabulary) -> None:
    """Raises UserError unless the task's ids are those of the run's vocabulary."""
    for name in FEATURES:
        if name not in task.output_features:
            raise UserError(
                f"seqio task {task.name!r} has no output feature {name!r}; a run "
                f"needs 'inputs' and 'targets', it has {', '.join(task.output_features)}"
            )
        theirs = from_seqio(getattr(task.output_features[name], "vocabulary", None))
        if theirs is None:
            continue  # the user's own vocabulary class: its ids are not checked
        if load_vocabulary(theirs).fingerprint != vocabulary.fingerprint:
            raise UserError(
                f"seqio task {task.name!r} tokenizes {name!r} with {theirs!r}, this run uses "
                f"{vocabulary.spec!r}. Set VOCABULARY to {theirs!r}, or change the task's features"
            )


def _dtype_error(task: seqio.Task, split: str, lengths: Mapping[str, int]) -> UserError | None:
    """The error of a failing pipeline whose features are neither text nor ids, else None."""
    dataset = task.source.get_dataset(split, shuffle=False)
    failing = "the end of its preprocessors"
    for step in task.preprocessors:
        transform = seqio.utils.add_kwargs_to_transform(
            step, sequence_length=lengths, output_features=task.output_features
        )
        try:
            dataset = transform(dataset)
        except (TypeError, ValueError):
            function = getattr(step, "func", step)  # of a functools.partial
            failing = f"step {getattr(function, '__name__', type(function).__name__)}"
            break
    tokenizing = failing.startswith("step tokenize")
    for name in FEATURES:
        spec = dataset.element_spec.get(name)
        if spec is None or spec.dtype == tf.string:
            continue
        if tokenizing or not spec.dtype.is_integer or spec.shape.rank != 1:
            return UserError(
                f"seqio task {task.name!r}, split {split!r}: feature {name!r} has dtype "
                f"{spec.dtype.name} and rank {spec.shape.rank} at {failing}. A step that tokenizes "
                "takes text (tf.string), and the last step must give int32 ids of rank 1. Turn "
                "numbers into text before they are tokenized, for example with "
                f"tf.strings.as_string(example[{name!r}])"
            )
    return None


def token_records(
    name: str, split: str, lengths: Mapping[str, int], vocabulary: Vocabulary, seed: int = 0
) -> Iterator[TokenRecord | Dropped]:
    """Runs a plain task's TensorFlow pipeline once over a split, unshuffled.

    Raises:
        UserError: the task uses another vocabulary, lacks a feature, or has one that is neither
            text nor token ids.
    """
    task = seqio.TaskRegistry.get(name)
    check_plain_vocabulary(task, vocabulary)
    try:
        dataset = task.get_dataset(
            sequence_length=dict(lengths), split=split, shuffle=False, seed=seed, num_epochs=1
        )
    except (TypeError, ValueError) as error:
        clear = _dtype_error(task, split, lengths)
        if clear is None:
            raise
        raise clear from error
    vocabularies = {name: task.output_features[name].vocabulary for name in FEATURES}
    for number, example in enumerate(dataset.as_numpy_iterator()):
        ids = {name: [int(i) for i in example.pop(name)] for name in FEATURES}
        if set(ids["targets"]) <= {vocabulary.eos_id}:
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


def feature_converter(config: DataConfig) -> seqio.FeatureConverter:
    """SeqIO's converter to the layout of `config`.

    Raises:
        UserError: SeqIO has none that starts sequences as the vocabulary does.
    """
    start, packed = config.frame.start_ids, config.packing != "none"
    decoder_only = config.batch_layout is batch.DECODER_ONLY
    if len(start) != decoder_only:
        raise UserError(
            f"DataConfig.feed is 'seqio', whose converters cannot start a sequence of layout "
            f"{config.layout!r} with the tokens {start} of vocabulary {config.vocabulary!r}. "
            "Use DataConfig.feed='records'"
        )
    if decoder_only:
        on_targets = config.loss_on == "targets"
        return seqio.DecoderFeatureConverter(on_targets, pack=packed, bos_id=start[0])
    return seqio.EncDecFeatureConverter(pack=packed)


def seqio_windows(
    workspace: Workspace,
    config: DataConfig,
    host: int,
    num_hosts: int,
    num_leaves: int,
    start: int,
) -> Iterator[Window]:
    """Rows of SeqIO's pipeline (sampling, shuffle buffers, next-fit packing), 256 a window.

    Rows before window `start` are computed and discarded. Sets SeqIO's workspace to `workspace`.
    """
    if load_vocabulary(config.vocabulary).pad_id != 0:
        raise UserError(
            f"DataConfig.feed='seqio' pads with 0, which is text in vocabulary "
            f"{config.vocabulary!r}; use feed='records'"
        )
    use_workspace(workspace)
    layout = config.batch_layout
    dataset = seqio.get_dataset(
        config.mixture,
        dict(config.feature_lengths),
        feature_converter(config),
        dataset_split=config.split,
        shuffle=True,
        num_epochs=None,
        shard_info=seqio.ShardInfo(host, num_hosts) if num_hosts > 1 else None,
        verbose=False,
        seed=config.seed,
    )
    dataset = dataset.skip(start * _WINDOW_ROWS).batch(_WINDOW_ROWS)
    sides = (
        (batch.ENCODER_INPUT_TOKENS, batch.ENCODER_SEGMENT_IDS, batch.ENCODER_POSITIONS),
        (batch.DECODER_TARGET_TOKENS, batch.DECODER_SEGMENT_IDS, batch.DECODER_POSITIONS),
    )
    for arrays in dataset.as_numpy_iterator():
        rows = {key: np.asarray(value, dtype=np.int32) for key, value in arrays.items()}
        for tokens, segments, positions in sides:
            if tokens in layout.keys and segments not in rows:  # not packed: one example a row
                rows[segments] = (rows[tokens] != 0).astype(np.int32)
                rows[positions] = np.arange(rows[tokens].shape[1], dtype=np.int32) * rows[segments]
        # SeqIO's packing does not keep the tasks of the examples.
        rows[batch.DECODER_TASK_IDS] = np.zeros_like(rows[batch.DECODER_TARGET_TOKENS])
        if layout is batch.DECODER_ONLY:
            inside = rows[batch.DECODER_SEGMENT_IDS] > 0  # SeqIO shifts a token into the padding
            prefix = inside & (config.loss_on == "targets")
            rows[batch.DECODER_INPUT_TOKENS] = rows[batch.DECODER_INPUT_TOKENS] * inside
            rows[batch.DECODER_CAUSAL_ATTENTION] = rows[batch.DECODER_CAUSAL_ATTENTION] * prefix
            rows = {key: rows[key] for key in layout.keys}
        else:
            rows = decoder_features(rows)
        yield Window(
            rows=rows,
            row_ends=np.zeros(len(rows[batch.DECODER_TARGET_TOKENS]), dtype=np.int64),
            example_leaves=np.zeros(0, dtype=np.int64),
            counts=np.zeros((len(COUNTS), num_leaves), dtype=np.int64),
            dropped={},
        )
