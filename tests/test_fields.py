"""Fields of a `*Config` hold what their annotations say."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Annotated, Literal

import pytest

from instruct.checkpoints.checkpoint import CheckpointConfig
from instruct.data.config import DataConfig
from instruct.errors import UserError
from instruct.eval.decoding.batching import BatchConfig
from instruct.eval.decoding.decode import DecodeConfig
from instruct.eval.eval_config import EvalConfig
from instruct.fields import Range, bounded, check_arguments, check_fields, one_of
from instruct.mesh import MeshConfig
from instruct.train.loss import LossConfig
from instruct.train.optimizer import OptimizerConfig


@dataclasses.dataclass(frozen=True)
class Plain:
    number: int = 1
    share: float = 0.5
    name: str = "a"
    flag: bool = False
    limit: int | None = None
    kind: Literal["a", "b"] = "a"

    __post_init__ = check_fields


def test_what_is_right():
    for fields in ({}, {"share": 1}, {"limit": 3}, {"number": -1}, {"kind": "any"}):
        Plain(**fields)


@pytest.mark.parametrize(
    "field,value",
    [
        ("number", "1"),
        ("number", True),
        ("number", 1.0),
        ("number", None),
        ("number", 2**32),
        ("number", -(10**99)),
        ("share", math.nan),
        ("share", math.inf),
        ("share", False),
        ("share", 10**400),
        ("name", 3),
        ("flag", "no"),
        ("flag", 1),
        ("limit", "None"),
    ],
)
def test_what_is_wrong(field, value):
    with pytest.raises(UserError, match=rf"Plain\.{field} "):
        Plain(**{field: value})


def test_quotes_are_blamed_only_where_they_are_what_is_wrong():
    for field, value in (("number", "12"), ("share", "1"), ("share", "2e-3"), ("flag", "True")):
        with pytest.raises(UserError, match=f"Write it without quotes: {value}"):
            Plain(**{field: value})
    for field, value in (("number", "ten"), ("number", "1.5"), ("share", "x"), ("flag", "yes")):
        with pytest.raises(UserError) as caught:
            Plain(**{field: value})
        assert "quotes" not in str(caught.value)


NUMBERS = (-1, 2**63, 10**30, 1e30, math.nan, math.inf, True, "x", None, [1], {}, "")
CONFIGS = {
    DataConfig: {
        "mixture": "m",
        "feature_lengths": {"inputs": 8, "targets": 8},
        "batch_size": 1,
    },
    OptimizerConfig: {},
    LossConfig: {},
    CheckpointConfig: {},
    MeshConfig: {},
    DecodeConfig: {},
    BatchConfig: {},
    EvalConfig: {"mixtures": "m"},
}


@pytest.mark.parametrize("config", CONFIGS)
def test_absurd_values_are_user_errors_of_every_config(config):
    kinds = {int: (int,), float: (int, float), str: (str,), bool: (bool,)}
    for field in dataclasses.fields(config):
        for value in NUMBERS:
            try:
                made = config(**CONFIGS[config] | {field.name: value})
            except UserError:
                continue
            if field.type in kinds:
                assert type(value) in kinds[field.type], (field.name, value)
                assert type(value) not in (int, float) or abs(value) < 2**33 or value == 1e30
            assert made is not None


@pytest.mark.parametrize("seed", [-1, 2**32, 2**64, 0.5, True, "1"])
def test_seeds_beyond_32_bits(seed):
    with pytest.raises(UserError, match="SEED"):
        DataConfig(**CONFIGS[DataConfig] | {"seed": seed})


def entry(plain: Plain, count: int, more: Plain | None = None, *, path: str = "") -> None:
    """Stands for `train`."""


def test_arguments_of_an_entry():
    check_arguments(entry, {"plain": Plain(), "count": 3, "more": None})
    check_arguments(entry, {"plain": Plain(), "path": 3}, except_for=("count", "path"))
    with pytest.raises(UserError, match="entry needs plain, count, which no gin file binds"):
        check_arguments(entry, {})
    for name, value in {"plain": 3, "more": "x", "count": None, "path": 3}.items():
        with pytest.raises(UserError, match=rf"entry\.{name} .*{value!r}"):
            check_arguments(entry, {"plain": Plain(), "count": 3, name: value})

    def either(config: Plain | Declared) -> None:
        """Takes one of several configurations."""

    for config in (Plain(), Declared()):
        check_arguments(either, {"config": config})
    with pytest.raises(UserError, match=r"bind Plain or Declared's fields .* @Plain\(\)"):
        check_arguments(either, {"config": "tiny"})


def test_lists_of_an_entry():
    def entry(many: Sequence[int], none: Sequence[int] | None = None) -> None:
        """Stands for `train`, which takes trackers."""

    for right in ([], (1, 2)):
        check_arguments(entry, {"many": right, "none": None})
    for wrong in (5, "12", None, {1: 2}):
        with pytest.raises(UserError, match=rf"entry\.many is {wrong!r}; use a list"):
            check_arguments(entry, {"many": wrong})


@dataclasses.dataclass(frozen=True)
class Declared:
    steps: int = bounded(1, least=1, also=-1, note=", or -1 for all")
    share: float | None = bounded(None, above=0, most=1)
    rate: float = bounded(0.0, least=0, below=1)
    kind: str = one_of("plain", ("plain", "fancy"))

    __post_init__ = check_fields


def test_declared_ranges_and_choices():
    for fields in ({"steps": -1}, {"share": 1}, {"share": None}, {"rate": 0.5}, {"kind": "fancy"}):
        Declared(**fields)
    for fields, message in (
        ({"steps": 0}, r"Declared\.steps is 0; use a whole number of at least 1, or -1 for all\."),
        ({"share": 0}, r"share is 0; use a number in \(0, 1\]\."),
        ({"rate": 1.0}, r"rate is 1\.0; use a number in \[0, 1\)\."),
        ({"kind": "fanci"}, r"unknown Declared\.kind 'fanci'\. Did you mean 'fancy'"),
    ):
        with pytest.raises(UserError, match=message):
            Declared(**fields)


def test_ranges_of_arguments():
    def entry(count: Annotated[int | None, Range(least=1, most=9)] = None) -> None:
        """Stands for `infer`."""

    check_arguments(entry, {"count": None})
    with pytest.raises(UserError, match="entry.count is 10; use a whole number from 1 to 9"):
        check_arguments(entry, {"count": 10})
