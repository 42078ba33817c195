"""Our vocabularies and tasks as SeqIO classes, for programs that use SeqIO, such as T5X.

    prepared store, else source -> RecordDataSource: {number, split, key, record}
      -> (SeqIO's cache, if the user made one) -> render_records -> append EOS

TensorFlow is imported in this package, in registry.py and in sources/tfds.py only.
"""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np
import seqio
import tensorflow as tf

from instruct.data.feed.records import (
    exemplar_records,
    known_num_records,
    numbered_records,
    spec_manifest,
)
from instruct.data.feed.rendering import (
    FEATURE_NAMES,
    ExampleRenderer,
    example_features,
    example_key,
    name_key,
)
from instruct.data.huggingface_tokenizer import HuggingFaceVocabulary
from instruct.data.spec import TaskSpec
from instruct.data.vocab import load_vocabulary, model_path, parse_spec
from instruct.errors import UserError
from instruct.prompts.draws import mix
from instruct.prompts.frame import Frame
from instruct.prompts.record import Record
from instruct.prompts.render import Dropped
from instruct.workspace import Workspace

# TensorFlow's stubs declare tf.data.Dataset as a variable, which no type checker accepts.
Dataset: TypeAlias = Any
FEATURES = ("inputs", "targets")
_NO_LIMIT = 1 << 30
# A store can be read in any number of shards, but Apache Beam handles each as one element.
_MOST_SHARDS = 256
_LIST_FEATURES = ("references", "options", "markers")


class SeqioFolderVocabulary(seqio.Vocabulary):
    """A Hugging Face folder's vocabulary that SeqIO has no class for."""

    def __init__(self, words: HuggingFaceVocabulary) -> None:
        super().__init__()
        self.words = words

    @property
    def bos_id(self) -> int | None:
        return None

    @property
    def eos_id(self) -> int:
        return self.words.eos_id

    @property
    def unk_id(self) -> int | None:
        return self.words.unk_id

    @property
    def _base_vocab_size(self) -> int:
        return self.words.vocab_size

    def _encode(self, s: str) -> Sequence[int]:
        return self.words.encode(s)

    def _decode(self, ids: Any) -> str:
        return self.words.decode(ids)

    def _encode_tf(self, s: Any) -> Any:
        def encode(text: Any) -> np.ndarray:
            text = text.item() if isinstance(text, np.ndarray) else text  # an array if eager
            return np.asarray(self.words.encode(text.decode("utf-8", "replace")), np.int32)

        ids = tf.numpy_function(encode, [tf.convert_to_tensor(s, tf.string)], tf.int32)
        ids.set_shape((None,))
        return ids

    def _decode_tf(self, ids: Any) -> Any:
        def decode(rows: np.ndarray) -> np.ndarray:
            texts = [self.words.decode(row).encode() for row in rows.reshape(-1, rows.shape[-1])]
            return np.array(texts, dtype=object).reshape(rows.shape[:-1])

        ids = tf.convert_to_tensor(ids, tf.int32)
        texts = tf.numpy_function(decode, [ids], tf.string)
        texts.set_shape(ids.shape[:-1])
        return texts

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, SeqioFolderVocabulary)
            and self.words.fingerprint == other.words.fingerprint
        )

    def __hash__(self) -> int:
        return hash(self.words.fingerprint)


@functools.lru_cache(maxsize=8)
def seqio_vocabulary(spec: str) -> seqio.Vocabulary:
    """SeqIO's class for a vocabulary of ours, with the same ids. Reads files when first used.

    One object per name, so that all tasks of a mixture share a tokenizer. As SeqIO reads buckets,
    the name may be an address such as gs://bucket/sentencepiece.model.
    """
    name, extra_ids = parse_spec(spec)
    if name == "bytes":
        return seqio.ByteVocabulary(extra_ids=extra_ids)
    if Path(spec).expanduser().is_dir():
        words = load_vocabulary(spec)
        if isinstance(words, HuggingFaceVocabulary):
            return SeqioFolderVocabulary(words)
        return seqio_vocabulary(words.spec)
    return seqio.SentencePieceVocabulary(
        name if "://" in name else str(model_path(spec)), extra_ids
    )


def from_seqio(vocabulary: Any) -> str | None:
    """Name of our vocabulary with the same ids, else None."""
    if isinstance(vocabulary, seqio.ByteVocabulary):
        return f"bytes#extra_ids={vocabulary.extra_ids}"
    if isinstance(vocabulary, SeqioFolderVocabulary):
        return vocabulary.words.spec
    if isinstance(vocabulary, seqio.SentencePieceVocabulary):
        return f"{vocabulary.sentencepiece_model_file}#extra_ids={vocabulary.extra_ids}"
    return None


class RecordDataSource(seqio.DataSource):
    """Records as {"number": int64, "split": text, "key": text, "record": JSON text}.

    Not a `FunctionDataSource`, which inspects the signature of its function: for all tasks of the
    collection that takes longer than the rest of their registration.
    """

    def __init__(self, spec: TaskSpec, leaf_name: str) -> None:
        self.spec = spec
        self._leaf_key = name_key(leaf_name)
        super().__init__(splits=tuple(spec.splits))

    @property
    def supports_arbitrary_sharding(self) -> bool:
        """False: there are at most `list_shards`."""
        return False

    def num_input_examples(self, split: str) -> int | None:
        """From the store's manifest, else as the task declares, else None."""
        return known_num_records(RecordTask.workspace, self.spec, split)

    def is_prepared(self, split: str) -> bool:
        """Whether the split has a store."""
        return (
            split in self.spec.splits
            and spec_manifest(RecordTask.workspace, self.spec, split) is not None
        )

    def list_shards(self, split: str) -> Sequence[str]:
        """One name for each shard of a store; a source is read as a whole."""
        manifest = spec_manifest(RecordTask.workspace, self.spec, split)
        if manifest is None:
            return [split]
        return [f"{split}-{n:04}" for n in range(min(manifest.num_records, _MOST_SHARDS))]

    def get_dataset(
        self,
        split: str = "train",
        shuffle: bool = True,
        seed: int | None = None,
        shard_info: seqio.ShardInfo | None = None,
        **_: Any,
    ) -> Dataset:
        """The records, or one shard of them."""
        shard = (shard_info.index, shard_info.num_shards) if shard_info else (0, 1)
        if shard[1] > len(self.list_shards(split)):
            raise UserError(
                f"task {self.spec.name!r}, split {split!r}: {shard[1]} shards requested, its "
                f"records come in {len(self.list_shards(split))}. Prepare its store, or shard the "
                "examples."
            )

        def generate():
            rows = numbered_records(
                RecordTask.workspace, self.spec, split, shuffle, seed or 0, shard
            )
            for number, record in rows:
                key = str(example_key(seed or 0, self._leaf_key, number))
                yield {"number": number, "split": split, "key": key, "record": record.to_json()}

        kinds = {"number": tf.int64, "split": tf.string, "key": tf.string, "record": tf.string}
        signature = {name: tf.TensorSpec((), kind) for name, kind in kinds.items()}
        return tf.data.Dataset.from_generator(generate, output_signature=signature)


def render_records(
    dataset: Dataset,
    output_features: Mapping[str, Any],
    sequence_length: Mapping[str, int] | None = None,
    *,
    spec: TaskSpec,
    mode: str,
) -> Dataset:
    """A seqio preprocessor: `RecordDataSource`'s elements -> token ids, texts, other features.

    Examples that do not fit `sequence_length` are dropped. The key of an example comes from
    (seed, record number, epoch). Tokenizes as well, because SeqIO's `tokenize` holds a copy of the
    vocabulary for every task of a mixture.
    """
    workspace = RecordTask.workspace
    spec = spec.within(workspace)
    frame = Frame(output_features["inputs"].vocabulary)
    limits = sequence_length or {}
    lengths = (limits.get("inputs", _NO_LIMIT), limits.get("targets", _NO_LIMIT))

    @functools.cache
    def renderer(split: bytes) -> ExampleRenderer:
        exemplars_fn = functools.partial(exemplar_records, workspace, spec)
        return ExampleRenderer.of_task(spec, mode, split.decode(), frame, lengths, exemplars_fn)

    def render_one(number: int, split: bytes, key: bytes, line: bytes, epoch: int) -> list[Any]:
        record = Record.from_json(line)
        example_key = mix(int(key) ^ int(epoch)) if epoch else int(key)
        shown = renderer(split)(record, int(number), example_key)
        if isinstance(shown, Dropped):
            ids, texts = np.zeros(0, np.int32), np.empty(0, dtype=object)
            empty: list[Any] = [texts if name in _LIST_FEATURES else b"" for name in FEATURE_NAMES]
            empty[FEATURE_NAMES.index("answer_index")] = np.int32(-1)
            return [False, ids, ids, b"", b"", *empty]
        texts = (shown.inputs, shown.targets)
        # `append_eos_after_trim` adds EOS.
        ids = (np.asarray(side[:-1], np.int32) for side in (shown.input_ids, shown.target_ids))
        features = example_features(record, shown)
        return [True, *ids, *(text.encode() for text in texts), *features.values()]

    types = [tf.bool, tf.int32, tf.int32, tf.string, tf.string]
    types += [tf.int32 if name == "answer_index" else tf.string for name in FEATURE_NAMES]
    names = ("kept", *FEATURES, *(f"{name}_pretokenized" for name in FEATURES), *FEATURE_NAMES)

    def expand(element: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        arguments = [element[name] for name in ("number", "split", "key", "record", "epoch")]
        values = tf.numpy_function(render_one, arguments, types)
        for name, value in zip(names, values):
            value.set_shape((None,) if name in (*FEATURES, *_LIST_FEATURES) else ())
        return dict(zip(names, values))

    dataset = _count_epochs(dataset).map(expand, num_parallel_calls=2)
    return dataset.filter(lambda x: x["kept"]).map(
        lambda x: {name: value for name, value in x.items() if name != "kept"}
    )


def _count_epochs(dataset: Dataset) -> Dataset:
    """Adds "epoch": how often the first record has come again."""
    unknown = tf.constant(-1, tf.int64)

    def count(state: tuple[tf.Tensor, tf.Tensor], element: dict[str, tf.Tensor]) -> Any:
        first, epoch = state
        first = tf.where(first < 0, element["number"], first)
        epoch = tf.where(element["number"] == first, epoch + 1, epoch)
        return (first, epoch), element | {"epoch": epoch}

    return dataset.scan((unknown, unknown), count)


class RecordTask(seqio.Task):
    """A `TaskSpec` in one mode, with the vocabulary and workspace of all such tasks."""

    vocabulary = "gym"  # set by `use_vocabulary`
    workspace = Workspace()  # set by `use_workspace`

    @property
    def output_features(self) -> Mapping[str, Any]:
        return record_features(RecordTask.vocabulary)

    @property
    def source(self) -> RecordDataSource:  # `record_task` makes them all
        return cast(RecordDataSource, super().source)

    def get_dataset(
        self,
        sequence_length: Mapping[str, int] | None = None,
        split: str = "train",
        use_cached: bool = False,
        *arguments: Any,
        **options: Any,
    ) -> Dataset:
        """As SeqIO's; a prepared store counts as a cache.

        `use_cached` reads SeqIO's own cache if there is one, else the store. A store is shuffled by
        record number: no records in memory, and no shuffle buffers, which thousands of tasks would
        have to fill first.

        Raises:
            UserError: `use_cached` with neither a cache nor a store.
        """
        prepared = self.source.is_prepared(split)
        use_cached = use_cached and bool(self.cache_dir or not prepared)
        if use_cached:
            self.assert_cached()
        elif prepared:
            options["try_in_mem_cache"] = False
            options.setdefault("shuffle_buffer_size", 1)
        return super().get_dataset(sequence_length, split, use_cached, *arguments, **options)

    def assert_cached(self) -> None:
        """Raises UserError unless SeqIO's cache exists."""
        if not self.cache_dir:
            searched = ", ".join(seqio.get_global_cache_dirs()) or "none set"
            raise UserError(
                f"task {self.name!r} has neither a prepared store in "
                f"{RecordTask.workspace.store_dir} nor a SeqIO cache (cache folders: {searched}), "
                "which use_cached (T5X's USE_CACHED_TASKS) needs. Run `python run.py prepare "
                f"--mixture={self.name}`, or set use_cached to False to read its source."
            )


def use_workspace(workspace: Workspace) -> None:
    """Sets where all our tasks in SeqIO's registry find data, stores and wordings.

    Programs without this project's command line get a workspace from
    `instruct.cli.environment.workspace_from_environment()`.
    """
    RecordTask.workspace = workspace


def use_vocabulary(spec: str, workspace: Workspace | None = None) -> seqio.Vocabulary:
    """Sets the vocabulary of all our tasks, and returns it for the model.

    T5X requires the model's and the tasks' vocabularies to be equal, and SeqIO's are equal only if
    they have the same path.

    Args:
        workspace: passed to `use_workspace`, for gin files, which call one function; None keeps
            the current one.
    """
    if workspace is not None:
        use_workspace(workspace)
    parse_spec(spec)
    RecordTask.vocabulary = spec
    return seqio_vocabulary(spec)


@functools.lru_cache(maxsize=8)
def record_features(vocabulary: str) -> Mapping[str, Any]:
    """Output features of our tasks with a vocabulary."""
    shared = seqio_vocabulary(vocabulary)
    return {name: seqio.Feature(vocabulary=shared, add_eos=True) for name in FEATURES}


def registered_task(spec: TaskSpec, mode: str) -> RecordTask:
    """The seqio task of one mode for SeqIO's registry, scored as `RecordTask.workspace` says."""
    if spec.within_fn is None:
        return record_task(spec, mode)

    def postprocess(decoded: Any, **arguments: Any) -> Any:
        postprocess_fn = spec.within(RecordTask.workspace).postprocess_fn
        return decoded if postprocess_fn is None else postprocess_fn(decoded, **arguments)

    def metric(number: int, metric_fn: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(metric_fn)
        def score(*arguments: Any, **named: Any) -> Any:
            current = spec.within(RecordTask.workspace).metric_fns_of(mode)[number]
            return current(*arguments, **named)

        return score

    metrics = [metric(number, fn) for number, fn in enumerate(spec.metric_fns_of(mode))]
    return record_task(spec, mode, postprocess, metrics)


def record_task(
    spec: TaskSpec,
    mode: str,
    postprocess_fn: Callable[..., Any] | None = None,
    metric_fns: Sequence[Callable[..., Any]] | None = None,
) -> RecordTask:
    """The seqio task of one mode; `postprocess_fn` and `metric_fns` override the spec's."""
    name = spec.leaf_name(mode)
    return RecordTask(
        name,
        source=RecordDataSource(spec, name),
        output_features={},
        preprocessors=[
            seqio.CacheDatasetPlaceholder(),
            functools.partial(render_records, spec=spec, mode=mode),
            seqio.preprocessors.append_eos_after_trim,
        ],
        postprocess_fn=postprocess_fn or spec.postprocess_fn,
        metric_fns=list(spec.metric_fns_of(mode) if metric_fns is None else metric_fns),
    )


class WorkspaceMixture(seqio.Mixture):
    """A mixture for SeqIO's registry whose tasks and rates depend on `RecordTask.workspace`."""

    def __init__(
        self,
        name: str,
        leaves_fn: Callable[[Workspace], Iterable[str]],
        shares_fn: Callable[[Workspace], Mapping[str, float]],
    ) -> None:
        self._name = name
        self._leaves_fn, self._shares_fn = leaves_fn, shares_fn
        self._sub_mixtures: list[seqio.Mixture] = []
        self._sample_fn = functools.partial(
            tf.data.Dataset.sample_from_datasets, stop_on_empty_dataset=True
        )
        self._source_info = None

    @property
    def rate_per_task_name(self) -> Mapping[str, float]:
        return self._shares_fn(RecordTask.workspace)

    @property
    def tasks(self) -> list[seqio.Task]:
        # By name only: a mixture of a user's over this one asks while it is registered.
        return [seqio.TaskRegistry.get(name) for name in self._leaves_fn(RecordTask.workspace)]

    @property
    def total_rate(self) -> float:
        return sum(self.rate_per_task_name.values())

    def get_rate(self, task: seqio.Task) -> float:
        return self.rate_per_task_name.get(task.name, 0.0)
