"""Our vocabularies and tasks as SeqIO's classes, for programs that read SeqIO, such as T5X.

    prepared store, else source -> RecordDataSource: {number, split, key, record}
      -> (SeqIO's cache, if the user made one) -> render_records -> append EOS

TensorFlow is imported in this package, in registry.py and in sources/tfds.py only.
"""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

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
from instruct.prompts.record import Record
from instruct.prompts.render import Dropped
from instruct.workspace import Workspace

# TensorFlow's stubs declare tf.data.Dataset as a variable, which no type checker accepts.
Dataset: TypeAlias = Any
FEATURES = ("inputs", "targets")
_NO_LIMIT = 1 << 30
# A store is read in any number of shares, but every share is one more element for Apache Beam.
_MOST_SHARES = 256
_LIST_FEATURES = ("references", "options", "markers")
_INT_FEATURES = ("answer_index",)


class SeqioAddedTokens(seqio.Vocabulary):
    """A Hugging Face folder's vocabulary with added tokens, for SeqIO."""

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
    def unk_id(self) -> int:
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
            isinstance(other, SeqioAddedTokens)
            and self.words.fingerprint == other.words.fingerprint
        )

    def __hash__(self) -> int:
        return hash(self.words.fingerprint)


@functools.lru_cache(maxsize=8)
def seqio_vocabulary(spec: str) -> seqio.Vocabulary:
    """SeqIO's class for the vocabulary of that name; gives the same ids. Reads nothing yet.

    One object per name, so that all tasks of a mixture share its tokenizer. SeqIO reads buckets
    too, so here the name may be an address such as gs://bucket/sentencepiece.model.
    """
    name, extra_ids = parse_spec(spec)
    if name == "bytes":
        return seqio.ByteVocabulary(extra_ids=extra_ids)
    if Path(spec).expanduser().is_dir():
        words = load_vocabulary(spec)
        if isinstance(words, HuggingFaceVocabulary):
            return SeqioAddedTokens(words)
        return seqio_vocabulary(words.spec)
    return seqio.SentencePieceVocabulary(
        name if "://" in name else str(model_path(spec)), extra_ids
    )


def from_seqio(vocabulary: Any) -> str | None:
    """Name of our vocabulary with the same ids; None if we have none."""
    if isinstance(vocabulary, seqio.ByteVocabulary):
        return f"bytes#extra_ids={vocabulary.extra_ids}"
    if isinstance(vocabulary, SeqioAddedTokens):
        return vocabulary.words.spec
    if isinstance(vocabulary, seqio.SentencePieceVocabulary):
        return f"{vocabulary.sentencepiece_model_file}#extra_ids={vocabulary.extra_ids}"
    return None


class RecordDataSource(seqio.DataSource):
    """Records as {"number": int64, "split": text, "key": text, "record": JSON text}.

    No `FunctionDataSource`: that looks at the signature of its function, which for the leaves of
    the whole collection costs more than all the rest of registering them.
    """

    def __init__(self, spec: TaskSpec, leaf_name: str) -> None:
        self._spec = spec
        self._leaf_key = name_key(leaf_name)
        super().__init__(splits=tuple(spec.splits))

    @property
    def supports_arbitrary_sharding(self) -> bool:
        """Not beyond `list_shards`."""
        return False

    def num_input_examples(self, split: str) -> int | None:
        """From the store's manifest, else as the task declares, else None."""
        return self.num_records(RecordTask.workspace, split)

    def num_records(self, workspace: Workspace, split: str) -> int | None:
        """`num_input_examples` in a workspace."""
        return known_num_records(workspace, self._spec, split)

    def is_prepared(self, split: str) -> bool:
        """Whether there is a store of the split."""
        return (
            split in self._spec.splits
            and spec_manifest(RecordTask.workspace, self._spec, split) is not None
        )

    def list_shards(self, split: str) -> Sequence[str]:
        """One name for each share that can be read alone; a source is read whole."""
        manifest = spec_manifest(RecordTask.workspace, self._spec, split)
        if manifest is None:
            return [split]
        return [f"{split}-{n:04}" for n in range(min(manifest.num_records, _MOST_SHARES))]

    def get_dataset(
        self,
        split: str = "train",
        shuffle: bool = True,
        seed: int | None = None,
        shard_info: seqio.ShardInfo | None = None,
        **_: Any,
    ) -> Dataset:
        """The records, or one share of them."""
        share = (shard_info.index, shard_info.num_shards) if shard_info else (0, 1)
        if share[1] > len(self.list_shards(split)):
            raise UserError(
                f"task {self._spec.name!r}, split {split!r}: {share[1]} shares were asked for, "
                f"{len(self.list_shards(split))} can be read alone; prepare its store, or shard "
                "the examples."
            )
        return self._make_dataset(split, shuffle, seed, share)

    def _make_dataset(
        self,
        split: str,
        shuffle_files: bool,
        seed: int | None = None,
        share: tuple[int, int] = (0, 1),
    ) -> Dataset:
        def generate():
            workspace = RecordTask.workspace
            rows = numbered_records(workspace, self._spec, split, shuffle_files, seed or 0, share)
            for number, record in rows:
                key = example_key(seed or 0, self._leaf_key, number)
                yield {
                    "number": number,
                    "split": split,
                    "key": str(key),
                    "record": record.to_json(),
                }

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
    """A seqio preprocessor: `RecordDataSource`'s elements -> token ids, texts and the rest.

    Examples that cannot be rendered within `sequence_length` are left out. The key of an example
    comes from (seed, record number, epoch). Tokens are made here, as SeqIO's `tokenize` would hold
    a copy of the vocabulary for every task of a mixture.
    """
    workspace = RecordTask.workspace
    spec = spec.within(workspace)
    tokenizer = output_features["inputs"].vocabulary
    limits = sequence_length or {}
    lengths = (limits.get("inputs", _NO_LIMIT), limits.get("targets", _NO_LIMIT))

    @functools.cache
    def renderer(split: bytes) -> ExampleRenderer:
        exemplars_fn = functools.partial(exemplar_records, workspace, spec)
        return ExampleRenderer.of_task(spec, mode, split.decode(), tokenizer, lengths, exemplars_fn)

    def render_one(number: int, split: bytes, key: bytes, line: bytes, epoch: int) -> list[Any]:
        record = Record.from_json(line)
        example_key = mix(int(key) ^ int(epoch)) if epoch else int(key)
        shown = renderer(split)(record, int(number), example_key)
        if isinstance(shown, Dropped):
            none = np.zeros(0, np.int32)
            return [False, none, none, b"", b"", *_empty_features()]
        texts = (shown.inputs, shown.targets)
        # `append_eos_after_trim` adds EOS.
        ids = (np.asarray(side[:-1], np.int32) for side in (shown.input_ids, shown.target_ids))
        features = example_features(record, shown)
        return [True, *ids, *(text.encode() for text in texts), *features.values()]

    types = [tf.bool, tf.int32, tf.int32, tf.string, tf.string]
    types += map(_feature_type, FEATURE_NAMES)
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
    """Adds "epoch": how often the record that came first has come again."""
    unknown = tf.constant(-1, tf.int64)

    def count(state: tuple[tf.Tensor, tf.Tensor], element: dict[str, tf.Tensor]) -> Any:
        first, epoch = state
        first = tf.where(first < 0, element["number"], first)
        epoch = tf.where(element["number"] == first, epoch + 1, epoch)
        return (first, epoch), element | {"epoch": epoch}

    return dataset.scan((unknown, unknown), count)


def _feature_type(name: str) -> Any:
    return tf.int32 if name in _INT_FEATURES else tf.string


def _empty_features() -> list[Any]:
    empty = np.empty(0, dtype=object)
    return [
        np.int32(-1) if name in _INT_FEATURES else empty if name in _LIST_FEATURES else b""
        for name in FEATURE_NAMES
    ]


class RecordTask(seqio.Task):
    """A `TaskSpec` in one mode. Vocabulary and workspace are those chosen for all tasks.

    Attributes:
        vocabulary: set by `use_vocabulary`.
        workspace: set by `use_workspace`; until then the default folders.
    """

    vocabulary = "gym"
    workspace = Workspace()

    @property
    def output_features(self) -> Mapping[str, Any]:
        return record_features(RecordTask.vocabulary)

    def get_dataset(
        self,
        sequence_length: Mapping[str, int] | None = None,
        split: str = "train",
        use_cached: bool = False,
        *arguments: Any,
        **options: Any,
    ) -> Dataset:
        """As SeqIO's; a prepared store counts as a cache.

        With `use_cached` SeqIO's own cache is read if there is one, else the store. A store is
        read in a shuffled order and by number, so its records are neither held in memory nor sent
        through a shuffle buffer, which thousands of tasks would have to fill first.

        Raises:
            UserError: a cache is asked for, and there is neither.
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
            searched = ", ".join(seqio.get_global_cache_dirs()) or "none is set"
            raise UserError(
                f"task {self.name!r} is to be read from a cache (use_cached, T5X's "
                "USE_CACHED_TASKS), and has neither a prepared store "
                f"({RecordTask.workspace.store_dir}) nor a SeqIO cache (cache folders: "
                f"{searched}). Run `python run.py prepare --mixture={self.name}`, or leave "
                "use_cached off to read its source."
            )


def use_workspace(workspace: Workspace) -> None:
    """Chooses where all our tasks in SeqIO's registry find data, stores and wordings.

    In a program without this project's command line,
    `instruct.cli.environment.workspace_from_environment()` makes the workspace.
    """
    RecordTask.workspace = workspace


def use_vocabulary(spec: str, workspace: Workspace | None = None) -> seqio.Vocabulary:
    """Chooses the vocabulary of all our tasks, and returns it, for a model that is to have it too.

    T5X builds its model before it looks at a task, and wants the two vocabularies to be equal,
    which SeqIO's are only if they were read from one path.

    Args:
        workspace: passed to `use_workspace`, for gin files, which call one function; None leaves
            the workspace as it is.
    """
    if workspace is not None:
        use_workspace(workspace)
    parse_spec(spec)
    RecordTask.vocabulary = spec
    return seqio_vocabulary(spec)


@functools.lru_cache(maxsize=8)
def record_features(vocabulary: str) -> Mapping[str, Any]:
    """Output features of our tasks under the vocabulary of that name."""
    shared = seqio_vocabulary(vocabulary)
    return {name: seqio.Feature(vocabulary=shared, add_eos=True) for name in FEATURES}


def registered_task(spec: TaskSpec, mode: str) -> RecordTask:
    """The seqio task of one mode for SeqIO's registry: scored as `RecordTask.workspace` says."""
    if spec.within_fn is None:
        return record_task(spec, mode)

    def now() -> TaskSpec:
        return spec.within(RecordTask.workspace)

    def postprocess(decoded: Any, **arguments: Any) -> Any:
        read = now().postprocess_fn
        return decoded if read is None else read(decoded, **arguments)

    def metric(number: int) -> Any:
        @functools.wraps(spec.metric_fns_of(mode)[number])
        def score(*arguments: Any, **named: Any) -> Any:
            return now().metric_fns_of(mode)[number](*arguments, **named)

        return score

    metrics = [metric(number) for number in range(len(spec.metric_fns_of(mode)))]
    return record_task(spec, mode, postprocess, metrics)


def record_task(
    spec: TaskSpec,
    mode: str,
    postprocess_fn: Callable[..., Any] | None = None,
    metric_fns: Sequence[Callable[..., Any]] | None = None,
) -> RecordTask:
    """The seqio task of one mode. Reads nothing.

    Args:
        postprocess_fn, metric_fns: instead of the task's own.
    """
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
