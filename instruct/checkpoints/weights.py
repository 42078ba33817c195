"""Maps a checkpoint's names to the model's by rules, and reports on every key.

A format gives its arrays under its own names; `translate` puts them under ours ('encoder/layers_0/
attention/query/kernel', layers separate), `fit` compares them with what a model wants. Nothing is
read for either. The `KeyReport` lists keys that are missing, left over or of another shape, and
loading continues only if the caller asked for all of them.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Callable, Mapping, Sequence

from instruct.checkpoints.arrays import Arrays, LazyArray, joined, layer_of, transposed, with_rows
from instruct.errors import UserError
from instruct.mesh import tree_paths
from instruct.models.config import SIZES, ModelConfig
from instruct.models.encoder_decoder import EncoderDecoder
from instruct.models.layout import unstack_layers

USED, COPY, IGNORED = "used", "copy", "ignored"
MISSING, LEFT_OVER, SHAPE, FRESH = "missing", "left over", "shape differs", "fresh"
_PROBLEMS = (MISSING, LEFT_OVER, SHAPE)
# Bounds on what files may claim, far above any model.
_MOST_LAYERS, _LARGEST_SIZE = 4096, 1 << 26
# A layer's number has one spelling: with '01' beside '1', one of the two would be lost unseen.
_NUMBER = "(0|[1-9][0-9]*)"
# The axis along which a vocabulary's ids lie.
VOCABULARY_AXES = {"token_embedder/embedding": 0, "decoder/logits_dense/kernel": 1}
# How an array of theirs becomes ours; the second argument is the layer's number.
VIEWS: Mapping[str, Callable[[LazyArray, int], LazyArray]] = {
    "": lambda array, layer: array,
    "transposed": lambda array, layer: transposed(array),
    "layer": lambda array, layer: layer_of(array, 1, layer),
    "layer, heads first": lambda array, layer: joined(layer_of(array, 1, layer), 0),
    "layer, heads last": lambda array, layer: joined(layer_of(array, 1, layer), 1),
}


@dataclasses.dataclass(frozen=True)
class Rule:
    """One line of a table of names.

    Attributes:
        ours, theirs: names; `{i}` is a layer's number. Where only `ours` has it, theirs holds all
            layers along axis 1.
        view: of `VIEWS`.
    """

    ours: str
    theirs: str
    view: str = ""


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A checkpoint of any format, opened: names and shapes are known, values are not read.

    Attributes:
        kind: 'instruct', 't5x' or 'huggingface'.
        place: its path or address.
        arrays: parameters under our names, layers separate.
        names: our name -> name in the checkpoint.
        model: architecture as far as the checkpoint tells; None: not at all.
        known_fields: fields of `model` that the checkpoint really tells.
        unknown: arrays whose names mean nothing to us.
        copies, ignored: names in the checkpoint that are not needed -> why.
        slots: optimiser slots, our name + '/v_row' and so on; empty if not asked for.
        step: 0 if the checkpoint has none.
        vocabulary: its specification (`instruct.data.vocab`), if the checkpoint brings one.
        notes: further information for the user.
    """

    kind: str
    place: str
    arrays: dict[str, LazyArray]
    names: dict[str, str]
    model: ModelConfig | None = None
    known_fields: frozenset[str] = frozenset()
    unknown: dict[str, LazyArray] = dataclasses.field(default_factory=dict)
    copies: dict[str, str] = dataclasses.field(default_factory=dict)
    ignored: dict[str, str] = dataclasses.field(default_factory=dict)
    slots: dict[str, LazyArray] = dataclasses.field(default_factory=dict)
    step: int = 0
    vocabulary: str | None = None
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class KeyRow:
    """One key: our name, theirs (either may be empty), and its status.

    Shapes are those under our name, after transposing and joining; () for a key without one.
    """

    status: str
    ours: str
    theirs: str
    shape: tuple[int, ...] = ()
    their_shape: tuple[int, ...] = ()
    note: str = ""


@dataclasses.dataclass(frozen=True)
class KeyReport:
    """Every key of a checkpoint and of the model it goes into.

    Attributes:
        source, target: what was compared, in words.
        rows: one for each key.
        notes: what holds for the whole.
    """

    source: str
    target: str
    rows: tuple[KeyRow, ...]
    notes: tuple[str, ...] = ()

    def of(self, *statuses: str) -> list[KeyRow]:
        """Rows with one of these statuses."""
        return [row for row in self.rows if row.status in statuses]

    def check(self, allow_left_over: bool = False) -> None:
        """Raises UserError if anything is missing, left over (unless allowed) or does not fit."""
        bad = self.of(*(s for s in _PROBLEMS if not (allow_left_over and s == LEFT_OVER)))
        if not bad:
            return
        counts = ", ".join(
            f"{sum(row.status == status for row in bad)} {status}"
            for status in _PROBLEMS
            if any(row.status == status for row in bad)
        )
        shown = "; ".join(_in_words(row) for row in bad[:4])
        more = f"; and {len(bad) - 4} more" if len(bad) > 4 else ""
        raise UserError(
            f"{self.source} does not fit {self.target} ({counts}): {shown}{more}. {_fix(bad)}"
        )

    def table(self) -> list[str]:
        """Lines for people: equal layers in one line, counts first, problems at the end."""
        order = (USED, COPY, IGNORED, FRESH, LEFT_OVER, MISSING, SHAPE)
        counts = ", ".join(f"{len(self.of(s))} {s}" for s in order if self.of(s))
        lines = [f"{self.source} -> {self.target}: {counts or 'no keys'}"]
        groups: dict[tuple, list[KeyRow]] = {}
        for row in sorted(self.rows, key=lambda row: order.index(row.status)):
            key = (row.status, _starred(row.ours), _starred(row.theirs), row.shape, row.note)
            groups.setdefault((*key, row.their_shape), []).append(row)
        for (status, ours, theirs, shape, note, their_shape), rows in groups.items():
            shapes = f"{list(shape or their_shape)}"
            if status == SHAPE:
                shapes = f"model {list(shape)}, checkpoint {list(their_shape)}"
            times = f" x {len(rows)}" if len(rows) > 1 else ""
            arrow = " <- ".join(name for name in (ours, theirs) if name)
            lines.append(f"{status:13} {arrow} {shapes}{times}{f'  ({note})' if note else ''}")
        return lines + [f"note: {note}" for note in self.notes]


def translate(
    arrays: Arrays, rules: Sequence[Rule]
) -> tuple[dict[str, LazyArray], dict[str, str], dict[str, LazyArray]]:
    """(arrays under our names, our name -> theirs, arrays that no rule knows)."""
    exact = [(re.compile(re.escape(r.theirs).replace(r"\{i\}", _NUMBER)), r) for r in rules]
    ours: dict[str, LazyArray] = {}
    names: dict[str, str] = {}
    unknown = {}
    for name, array in arrays.items():
        matched = [(m, rule) for pattern, rule in exact if (m := pattern.fullmatch(name))]
        if not matched:
            unknown[name] = array
        for match, rule in matched:
            numbers = [0]
            if match.groups():
                numbers = [int(match[1])]
            elif "{i}" in rule.ours:
                depth = array.shape[1] if len(array.shape) > 1 else 0
                if depth > _MOST_LAYERS:
                    raise UserError(f"{array.place} claims {depth:,} layers; it is damaged.")
                numbers = range(depth)
            for number in numbers:
                path = rule.ours.replace("{i}", str(number))
                try:
                    ours[path] = VIEWS[rule.view](array, number)
                except (ValueError, IndexError) as error:
                    raise UserError(
                        f"{array.place} has shape {list(array.shape)}, which cannot be read as "
                        f"{path} ({rule.view})."
                    ) from error
                names[path] = name
    return ours, names, unknown


@functools.lru_cache(maxsize=16)
def model_shapes(model: ModelConfig) -> Mapping[str, tuple[int, ...]]:
    """Our name -> shape of every parameter, layers separate; allocates nothing.

    Raises:
        UserError: sizes beyond any model, as a damaged or malicious configuration has them.
    """
    for name in (*SIZES, "relpos_buckets"):
        most = _MOST_LAYERS if name.endswith("layers") else _LARGEST_SIZE
        if getattr(model, name) > most:
            raise UserError(
                f"{name} = {getattr(model, name):,} is beyond any model (at most {most:,}); the "
                "configuration is damaged."
            )
    # The stacked program is as long as one layer, so this takes no time for deep models.
    stacked = EncoderDecoder(dataclasses.replace(model, scan_layers=True)).abstract_params()
    return {path: tuple(leaf.shape) for path, leaf in tree_paths(unstack_layers(stacked))}


def fit(
    checkpoint: Checkpoint,
    shapes: Mapping[str, tuple[int, ...]],
    target: str,
    mapping: Sequence[tuple[str, str | None]] = (),
    vocab_rows: int | None = None,
) -> tuple[dict[str, LazyArray], KeyReport]:
    """Arrays to read the model's parameters from, and the report, which the caller checks.

    Args:
        checkpoint: opened.
        shapes: of the model, from `model_shapes`.
        target: the model, in words.
        mapping: (regular expression on the whole of our name in the model, our name in the
            checkpoint (with the expression's groups as \\1), or None: initialised afresh); the
            first that matches counts, names that none matches stay. T5X's `assignment_map`.
        vocab_rows: cut the embedding and the output kernel to so many ids, or continue them with
            zeros.

    Raises:
        UserError: an expression of `mapping` is invalid or matches nothing.
    """
    there = dict(checkpoint.arrays)
    rows: list[KeyRow] = []
    if vocab_rows is not None:
        for name, axis in VOCABULARY_AXES.items():
            if name in there:
                there[name] = with_rows(there[name], axis, vocab_rows)
    wanted = _mapped(shapes, mapping)
    arrays = {}
    for path, shape in shapes.items():
        source = wanted[path]
        if source is None:
            rows.append(KeyRow(FRESH, path, "", shape, note="initialised afresh, as mapped"))
        elif source not in there:
            rows.append(KeyRow(MISSING, path, source if source != path else "", shape))
        else:
            name, array = checkpoint.names.get(source, source), there[source]
            same = tuple(array.shape) == tuple(shape)
            note = "" if same else _shape_note(path, shape, array.shape)
            rows.append(KeyRow(USED if same else SHAPE, path, name, shape, array.shape, note))
            if same:
                arrays[path] = array
    used = {source for source in wanted.values() if source is not None}
    for path in sorted(set(there) - used):
        name = checkpoint.names.get(path, path)
        rows.append(KeyRow(LEFT_OVER, "", name, their_shape=there[path].shape))
    for name, array in sorted(checkpoint.unknown.items()):
        rows.append(KeyRow(LEFT_OVER, "", name, their_shape=array.shape, note="unknown name"))
    rows += [KeyRow(COPY, "", name, note=why) for name, why in sorted(checkpoint.copies.items())]
    rows += [KeyRow(IGNORED, "", name, note=why) for name, why in checkpoint.ignored.items()]
    source = f"{checkpoint.kind} checkpoint {checkpoint.place}"
    return arrays, KeyReport(source, target, tuple(rows), checkpoint.notes)


def _mapped(
    shapes: Mapping[str, tuple[int, ...]], mapping: Sequence[tuple[str, str | None]]
) -> dict[str, str | None]:
    """Name in the model -> name in the checkpoint, or None."""
    rules = []
    for entry in mapping:
        try:
            pattern, name = entry
            rules.append((re.compile(pattern), None if name is None else "" + name))
        except (TypeError, ValueError, re.error) as error:
            raise UserError(
                f"the mapping's entry {entry!r} is no pair of a regular expression and a name or "
                f"None ({error}); write for example ('decoder/logits_dense/.*', None)."
            ) from error
    hits = [0] * len(rules)
    sources: dict[str, str | None] = {}
    for path in shapes:
        sources[path] = path
        for number, (pattern, name) in enumerate(rules):
            if match := pattern.fullmatch(path):
                hits[number] += 1
                sources[path] = None if name is None else _expanded(match, name)
                break
    for (pattern, _), count in zip(rules, hits):
        if not count:
            raise UserError(
                f"the mapping's expression {pattern.pattern!r} matches none of the model's "
                f"parameters (or only such as an earlier entry takes), which are called like "
                f"{next(iter(shapes))!r}; it must match a whole name."
            )
    return sources


def _expanded(match: re.Match[str], name: str) -> str:
    try:
        return match.expand(name)
    except (re.error, IndexError) as error:
        raise UserError(
            f"the mapping's name {name!r} does not go with its expression {match.re.pattern!r} "
            f"({error}); \\1 stands for what its first group (...) matched."
        ) from error


def _shape_note(path: str, shape: tuple[int, ...], their_shape: tuple[int, ...]) -> str:
    axis = VOCABULARY_AXES.get(path)
    if axis is not None and len(shape) == len(their_shape):
        same_rest = all(a == b for i, (a, b) in enumerate(zip(shape, their_shape)) if i != axis)
        if same_rest:
            return (
                f"{their_shape[axis]:,} rows of vocabulary there, {shape[axis]:,} in the model; "
                f"set ModelConfig.vocab_size = {their_shape[axis]}"
            )
    if math.prod(shape) == math.prod(their_shape) and shape == their_shape[::-1]:
        return "transposed"
    return ""


def _starred(name: str) -> str:
    return re.sub(r"(layers_|block\.)\d+", r"\1*", name)


def _in_words(row: KeyRow) -> str:
    if row.status == MISSING:
        asked = f" (asked for as {row.theirs})" if row.theirs else ""
        return f"{row.ours}{asked} is missing"
    if row.status == LEFT_OVER:
        return f"{row.theirs} {list(row.their_shape)} is left over"
    note = f" ({row.note})" if row.note else ""
    return (
        f"{row.ours} is {list(row.shape)} in the model, {row.theirs} {list(row.their_shape)} in "
        f"the checkpoint{note}"
    )


def _fix(bad: Sequence[KeyRow]) -> str:
    if any(row.status == SHAPE for row in bad):
        return "Use the configuration (gin file, config.json) of the model it was trained as."
    if any(row.status == MISSING for row in bad):
        return (
            "Use the configuration of the model it was trained as, or map what may be missing to "
            "None, to initialise it afresh."
        )
    return "Nothing is dropped silently: allow left-over keys explicitly if they are not needed."


def compare_models(
    checkpoint: Checkpoint, wanted: ModelConfig, name: str, in_part: bool = False
) -> None:
    """Raises UserError where the checkpoint says that it is another model.

    Args:
        checkpoint: opened.
        wanted: the model that it goes into.
        name: the wanted model, in words.
        in_part: compare only fields that no shape shows; `fit` compares sizes.
    """
    if checkpoint.model is None:
        return
    differing = [
        f"{field} is {getattr(checkpoint.model, field)!r} there, {getattr(wanted, field)!r} in "
        f"{name}"
        for field in sorted(checkpoint.known_fields)
        if not (in_part and field in (*SIZES, "tied_output", "relpos_buckets"))
        and getattr(checkpoint.model, field) != getattr(wanted, field)
    ]
    if differing:
        raise UserError(
            f"{checkpoint.kind} checkpoint {checkpoint.place} is another model: "
            f"{'; '.join(differing)}. Set ModelConfig so, or use the gin file of that model."
        )


# Fields that change what a model computes and that shapes alone do not settle.
COMPUTED_FIELDS = (
    "activations",
    "tied_output",
    "num_heads",
    "relpos_max_distance",
    "norm_epsilon",
)
