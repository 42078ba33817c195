"""`Family`: how one `model_type` of Hugging Face names its weights and writes its `config.json`."""

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from instruct.checkpoints.weights import Rule
from instruct.errors import UserError


@dataclasses.dataclass(frozen=True, eq=False)
class Family:
    """One `model_type`: a class of transformers, and the configuration class that computes it."""

    model_type: str
    architecture: str  # transformers' class
    config_class: type
    rules: tuple[Rule, ...]
    embedding: str  # name of the embedding; the output kernel's if they are one matrix
    head: str
    # (config.json, its path) -> an instance of `config_class`. Raises UserError for settings that
    # are not computed here.
    read: Callable[[Mapping[str, Any], str], Any]
    # The inverse: entries of config.json; fields that these cannot express are left to the caller,
    # which reads the result and compares.
    write: Callable[[Any], dict[str, Any]]
    # Settings of a config.json that follow from the class.
    fixed: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    # Further names that the embedding may have.
    embedding_copies: tuple[str, ...] = ()
    # Without a head, and not `tied_output`, the head is a copy of the embedding (T5 1.1).
    copies_head: bool = False
    # Entry of config.json that holds the settings of the text model of a multimodal class.
    text_config: str = ""
    # Beginning of a name in other versions and classes -> beginning here.
    renamed: Mapping[str, str] = dataclasses.field(default_factory=dict)
    # Regular expression of whole names that are not used -> reason.
    ignored: Mapping[str, str] = dataclasses.field(default_factory=dict)
    # What a written folder lacks, for the user.
    lacks: str = ""

    def current_name(self, name: str) -> str:
        """A name of theirs with its beginning as in `rules`."""
        old = next((old for old in self.renamed if name.startswith(old)), "")
        return self.renamed[old] + name.removeprefix(old) if old else name

    def their_names(self, paths: Iterable[str]) -> dict[str, tuple[str, Rule]]:
        """Our name, layers separate -> theirs and the rule that says so."""
        rules, names = {rule.ours: rule for rule in self.rules}, {}
        for path in paths:
            layer = re.search(r"layers_(\d+)", path)
            rule = rules[path.replace(layer[0], "layers_{i}") if layer else path]
            names[path] = (rule.theirs.replace("{i}", layer[1]) if layer else rule.theirs), rule
        return names


def build(config_class: type, fields: Mapping[str, Any], place: str) -> Any:
    """A configuration; raises UserError naming `place` for impossible ones."""
    try:
        return config_class(**fields)
    except UserError as error:
        raise UserError(f"{place} describes an impossible model: {error}") from error


def required(config: Mapping[str, Any], names: Mapping[str, str], place: str) -> dict[str, Any]:
    """{ours: value} for `names` {theirs: ours}; raises UserError if values are missing."""
    missing = [name for name in names if config.get(name) is None]
    if missing:
        raise UserError(f"{place} lacks {', '.join(missing)}. Download or copy it again.")
    return {ours: config[theirs] for theirs, ours in names.items()}


def computed(value: Any, names: Mapping[str, Any], setting: str) -> Any:
    """`names[value]` for the value of a setting; raises UserError if it is none of the names."""
    if str(value) not in names:
        listed = ", ".join(names)
        raise UserError(f"{setting} {value!r} is not computed here; use one of {listed}.")
    return names[str(value)]


def check_flags(config: Mapping[str, Any], names: tuple[str, ...], place: str) -> None:
    """Raises UserError unless these settings are true, false or missing."""
    for name in names:
        if not isinstance(config.get(name), bool | None):
            raise UserError(f"{place}: {name} is {config[name]!r}; it must be true or false.")


def check_fixed(config: Mapping[str, Any], values: Mapping[str, Any], place: str) -> None:
    """Raises UserError if settings have other values than the ones that are computed here."""
    for name, value in values.items():
        if config.get(name) not in (None, value):
            raise UserError(
                f"{place}: {name} is {config[name]!r}, which is not computed here; only {value!r} "
                "is. Set it so if the model was trained so."
            )
