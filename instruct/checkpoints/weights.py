"""Maps a checkpoint's names to the model's by rules, and reports on every key.

A format gives its arrays under its own names; `translate` renames them to ours ('encoder/layers_0/
attention/query/kernel', layers separate), `fit` compares them with the model. Neither reads values.
The `KeyReport` lists keys that are missing, left over or of another shape; loading continues only
if the caller allows them.
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping, Sequence

from instruct.checkpoints.adapter_arrays import Adapter
from instruct.checkpoints.arrays import LazyArray, joined, layer_of, transposed, with_rows
from instruct.checkpoints.model_fields import differences, flat_fields
from instruct.errors import UserError
from instruct.mesh import tree_paths
from instruct.models.layout import unstack_layers
from instruct.models.model import AnyConfig, make_model

USED, COPY, IGNORED = "used", "copy", "ignored"
MISSING, LEFT_OVER, SHAPE, FRESH = "missing", "left over", "shape differs", "fresh"
_PROBLEMS = (MISSING, LEFT_OVER, SHAPE)
# Bounds on what files may claim, far above any model.
MOST_LAYERS, _LARGEST_SIZE = 4096, 1 << 26
# A layer's number has one spelling: with '01' beside '1', one of the two would be lost unnoticed.
_NUMBER = "(0|[1-9][0-9]*)"
# The axis of the vocabulary's ids.
VOCABULARY_AXES = {"token_embedder/embedding": 0, "decoder/logits_dense/kernel": 1}
# How one of their arrays becomes ours; the second argument is the layer's number.
VIEWS: Mapping[str, Callable[[LazyArray, int], LazyArray]] = {
    "": lambda array, layer: array,
    "transposed": lambda array, layer: transposed(array),
    "layer": lambda array, layer: layer_of(array, 1, layer),
    "layer, heads first": lambda array, layer: joined(layer_of(array, 1, layer), 0),
    "layer, heads last": lambda array, layer: joined(layer_of(array, 1, layer), 1),
}


@dataclasses.dataclass(frozen=True)
class Rule:
    """One line of a table of names; `{i}` is a layer's number.

    Where only `ours` has it, theirs holds all layers along axis 1.
    """

    ours: str
    theirs: str
    view: str = ""  # of `VIEWS`


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """An opened checkpoint of any format: names and shapes are known, values are not read."""

    kind: str  # 'instruct', 't5x', 'huggingface' or 'peft'
    place: str  # path or address
    arrays: dict[str, LazyArray]  # parameters under our names, layers separate
    names: dict[str, str]  # our name -> name in the checkpoint
    model: AnyConfig | None = None  # architecture as far as it is recorded
    assumed_fields: frozenset[str] = frozenset()  # fields of `model` that are not recorded
    # Arrays whose names match no rule.
    unknown: dict[str, LazyArray] = dataclasses.field(default_factory=dict)
    # Names in the checkpoint that are not needed -> reason.
    copies: dict[str, str] = dataclasses.field(default_factory=dict)
    ignored: dict[str, str] = dataclasses.field(default_factory=dict)
    # Our name + '/v_row' and so on; empty if not asked for.
    slots: dict[str, LazyArray] = dataclasses.field(default_factory=dict)
    step: int = 0  # 0 also if the checkpoint has none
    vocabulary: str | None = None  # its specification, see `instruct.data.vocab`
    notes: tuple[str, ...] = ()  # for the user
    # Adapters by the names of their kernels, which `arrays` holds merged.
    adapters: dict[str, Adapter] = dataclasses.field(default_factory=dict)
    base: str = ""  # path of the model that the adapters belong to, if it lies elsewhere


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

    def sentence(self) -> str:
        """The problem with this key."""
        if self.status == MISSING:
            source = f" (mapped to {self.theirs})" if self.theirs else ""
            return f"{self.ours}{source} is missing"
        if self.status == LEFT_OVER:
            return f"{self.theirs} {list(self.their_shape)} is left over"
        note = f" ({self.note})" if self.note else ""
        return (
            f"{self.ours} is {list(self.shape)} in the model, {self.theirs} "
            f"{list(self.their_shape)} in the checkpoint{note}"
        )


@dataclasses.dataclass(frozen=True)
class KeyReport:
    """Every key of a checkpoint (`source`) and of the model (`target`) that it is loaded into."""

    source: str
    target: str
    rows: tuple[KeyRow, ...]
    notes: tuple[str, ...] = ()

    def of(self, *statuses: str) -> list[KeyRow]:
        """Rows with one of these statuses."""
        return [row for row in self.rows if row.status in statuses]

    def _counts(self, *statuses: str) -> str:
        return ", ".join(f"{len(self.of(s))} {s}" for s in statuses if self.of(s))

    def check(self, allow_left_over: bool = False) -> None:
        """Raises UserError if a key is missing, left over (unless allowed) or does not fit."""
        statuses = [s for s in _PROBLEMS if not (allow_left_over and s == LEFT_OVER)]
        bad = self.of(*statuses)
        if not bad:
            return
        shown = "; ".join(row.sentence() for row in bad[:4])
        more = f"; and {len(bad) - 4} more" if len(bad) > 4 else ""
        fix = "Allow left-over keys explicitly if they are not needed."
        if self.of(MISSING, SHAPE):
            fix = "Use the configuration (gin file, config.json) of the model that was trained"
            fix += "." if self.of(SHAPE) else ", or map missing names to None to initialise them."
        raise UserError(
            f"{self.source} does not fit {self.target} ({self._counts(*statuses)}): {shown}{more}. "
            f"{fix}"
        )

    def table(self) -> list[str]:
        """Lines of text: counts first, equal layers in one line, problems at the end."""
        order = (USED, COPY, IGNORED, FRESH, LEFT_OVER, MISSING, SHAPE)
        lines = [f"{self.source} -> {self.target}: {self._counts(*order) or 'no keys'}"]
        groups: dict[KeyRow, int] = {}
        for row in sorted(self.rows, key=lambda row: order.index(row.status)):
            names = {"ours": _starred(row.ours), "theirs": _starred(row.theirs)}
            group = dataclasses.replace(row, **names)
            groups[group] = groups.get(group, 0) + 1
        for row, count in groups.items():
            shapes = f"{list(row.shape or row.their_shape)}"
            if row.status == SHAPE:
                shapes = f"model {list(row.shape)}, checkpoint {list(row.their_shape)}"
            times = f" x {count}" if count > 1 else ""
            arrow = " <- ".join(name for name in (row.ours, row.theirs) if name)
            note = f"  ({row.note})" if row.note else ""
            lines.append(f"{row.status:13} {arrow} {shapes}{times}{note}")
        return lines + [f"note: {note}" for note in self.notes]


def _starred(name: str) -> str:
    return re.sub(r"(layers[_.]|block\.)\d+", r"\1*", name)


def translate(
    arrays: Mapping[str, LazyArray], rules: Sequence[Rule]
) -> tuple[dict[str, LazyArray], dict[str, str], dict[str, LazyArray]]:
    """(arrays under our names, our name -> theirs, arrays that match no rule)."""
    patterns = [(re.compile(re.escape(r.theirs).replace(r"\{i\}", _NUMBER)), r) for r in rules]
    ours: dict[str, LazyArray] = {}
    names: dict[str, str] = {}
    unknown = {}
    for name, array in arrays.items():
        matches = [(m, rule) for pattern, rule in patterns if (m := pattern.fullmatch(name))]
        if not matches:
            unknown[name] = array
        for match, rule in matches:
            numbers = [0]
            if match.groups():
                numbers = [int(match[1])]
            elif "{i}" in rule.ours:
                depth = array.shape[1] if len(array.shape) > 1 else 0
                if depth > MOST_LAYERS:
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
def model_shapes(model: AnyConfig) -> Mapping[str, tuple[int, ...]]:
    """Our name -> shape of every parameter, layers separate; allocates nothing.

    Raises UserError for sizes beyond any model, from a damaged or malicious configuration.
    """
    for name, value in flat_fields(model).items():
        most = MOST_LAYERS if name.endswith("layers") else _LARGEST_SIZE
        if type(value) is int and value > most and not name.endswith("rope_theta"):
            raise UserError(
                f"{name} = {value:,} is beyond any model (at most {most:,}); the configuration is "
                "damaged."
            )
    # The stacked program is as long as one layer, so this takes no time for deep models.
    stacked = make_model(dataclasses.replace(model, scan_layers=True)).abstract_params()
    return {path: tuple(leaf.shape) for path, leaf in tree_paths(unstack_layers(stacked))}


def fit(
    checkpoint: Checkpoint,
    shapes: Mapping[str, tuple[int, ...]],
    target: str,
    mapping: Sequence[tuple[str, str | None]] = (),
    vocab_rows: int | None = None,
) -> tuple[dict[str, LazyArray], KeyReport]:
    """Finds the array of each of the model's parameters; the caller checks the report.

    Args:
        checkpoint: opened.
        shapes: of the model, from `model_shapes`; `target` is the model in words.
        mapping: pairs of a regular expression on the whole of our name in the model, and our name
            in the checkpoint (with the expression's groups as \\1) or None, which initialises
            afresh. The first match counts, other names stay. T5X's `assignment_map`.
        vocab_rows: cut the embedding and the output kernel to so many ids, or pad them with zeros.
    """
    stored = dict(checkpoint.arrays)
    rows: list[KeyRow] = []
    if vocab_rows is not None:
        for name in VOCABULARY_AXES.keys() & stored.keys():
            stored[name] = with_rows(stored[name], VOCABULARY_AXES[name], vocab_rows)
    sources = _map_names(shapes, mapping)
    arrays = {}
    for path, shape in shapes.items():
        source = sources[path]
        if source is None:
            rows.append(KeyRow(FRESH, path, "", shape, note="initialised afresh, as mapped"))
        elif source not in stored:
            rows.append(KeyRow(MISSING, path, source if source != path else "", shape))
        else:
            name, array = checkpoint.names.get(source, source), stored[source]
            same = tuple(array.shape) == tuple(shape)
            note = "" if same else _shape_note(path, shape, array.shape)
            rows.append(KeyRow(USED if same else SHAPE, path, name, shape, array.shape, note))
            if same:
                arrays[path] = array
    for path in sorted(set(stored) - set(sources.values())):
        name = checkpoint.names.get(path, path)
        rows.append(KeyRow(LEFT_OVER, "", name, their_shape=stored[path].shape))
    for name, array in sorted(checkpoint.unknown.items()):
        rows.append(KeyRow(LEFT_OVER, "", name, their_shape=array.shape, note="unknown name"))
    rows += [KeyRow(COPY, "", name, note=why) for name, why in sorted(checkpoint.copies.items())]
    rows += [KeyRow(IGNORED, "", name, note=why) for name, why in checkpoint.ignored.items()]
    source = f"{checkpoint.kind} checkpoint {checkpoint.place}"
    return arrays, KeyReport(source, target, tuple(rows), checkpoint.notes)


def _map_names(
    shapes: Mapping[str, tuple[int, ...]], mapping: Sequence[tuple[str, str | None]]
) -> dict[str, str | None]:
    """Name in the model -> name in the checkpoint, or None."""
    sources: dict[str, str | None] = {path: path for path in shapes}
    mapped: set[str] = set()
    for entry in mapping:
        try:
            expression, name = entry
            free = [path for path in shapes if path not in mapped]
            matches = [m for path in free if (m := re.fullmatch(expression, path))]
            sources |= {m.string: None if name is None else m.expand(name) for m in matches}
        except (TypeError, ValueError, IndexError, re.error) as error:
            raise UserError(
                f"the mapping's entry {entry!r} is not understood ({error}); write a regular "
                "expression and a name (\\1 is its first group) or None, for example "
                "('decoder/logits_dense/.*', None)."
            ) from error
        if not matches:
            raise UserError(
                f"the mapping's expression {expression!r} matches none of the model's parameters "
                f"(or only ones that an earlier entry matches). It must match a whole name, such "
                f"as {next(iter(shapes))!r}."
            )
        mapped |= {m.string for m in matches}
    return sources


def _shape_note(path: str, shape: tuple[int, ...], their_shape: tuple[int, ...]) -> str:
    axis = VOCABULARY_AXES.get(path)
    if axis is not None and len(shape) == len(their_shape):
        others = range(len(shape))
        if all(shape[i] == their_shape[i] for i in others if i != axis):
            return (
                f"{their_shape[axis]:,} rows of vocabulary there, {shape[axis]:,} in the model; "
                f"set vocab_size = {their_shape[axis]}"
            )
    return "transposed" if shape == their_shape[::-1] else ""


def compare_models(
    checkpoint: Checkpoint, wanted: AnyConfig, name: str, in_part: bool = False
) -> None:
    """Raises UserError where the checkpoint records another model than `wanted` (called `name`).

    `in_part` compares only fields that no shape shows; `fit` compares sizes.
    """
    if checkpoint.model is None:
        return
    found = checkpoint.model
    if type(found) is type(wanted):
        assumed = {field: getattr(wanted, field) for field in checkpoint.assumed_fields}
        found = dataclasses.replace(found, **assumed)
    if differing := differences(found, wanted, name, shapes=not in_part):
        raise UserError(
            f"{checkpoint.kind} checkpoint {checkpoint.place} is another model: "
            f"{'; '.join(differing)}. Set {type(wanted).__name__} so, or use the gin file of that "
            "model."
        )
