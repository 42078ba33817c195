"""What evaluators give is logged together, and what is none is named."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from instruct.errors import UserError
from instruct.mean import Mean
from instruct.mesh import MeshConfig, make_mesh
from instruct.train.evaluators import (
    ValidationLoss,
    check_evaluators,
    evaluate,
    open_evaluators,
)
from instruct.train.loss import LossTotals

MESH = make_mesh(MeshConfig())


class Norm:
    def __init__(self, name, every_steps=1):
        self.every_steps, self._name = every_steps, name

    def __call__(self, params, step):
        assert not jax.sharding.get_abstract_mesh().empty
        return {self._name: jnp.linalg.norm(params["scale"]) * step}


def test_scalars_of_all_evaluators_together():
    params = {"scale": jnp.ones(4)}
    assert evaluate([Norm("a"), Norm("b")], params, 3, MESH) == ({"a": 6.0, "b": 6.0}, {})
    for names in ("aa", ["step"]):
        with pytest.raises(UserError, match="which the run logs already; give it another name"):
            evaluate([Norm(name) for name in names], params, 3, MESH)


class Texts:
    """Gives a scalar and a table, and knows its names."""

    every_steps = 1

    def open(self, folder, step):
        self.at = (folder, step)
        return {"c"}

    def __call__(self, params, step):
        return {"c": 2, "texts": [{"step": step, "text": "a"}]}


def test_tables_are_apart_from_scalars():
    params = {"scale": jnp.ones(4)}
    scalars, tables = evaluate([Norm("a"), Texts()], params, 3, MESH)
    assert scalars == {"a": 6.0, "c": 2.0} and tables == {"texts": [{"step": 3, "text": "a"}]}


def test_names_are_known_if_every_evaluator_tells_them(tmp_path):
    texts = Texts()
    assert open_evaluators([texts, texts], tmp_path, 7) == {"c"} and texts.at == (tmp_path, 7)
    assert open_evaluators([Norm("a"), texts], tmp_path, 0) is None
    assert open_evaluators([], tmp_path, 0) == set()


def test_validation_loss_is_a_mean_over_all_batches():
    def eval_step(params, batch):
        mean = Mean(batch["x"].sum() * params["scale"], jnp.float32(batch["x"].size))
        return LossTotals(mean, mean, mean, Mean(mean.total[None], mean.weight[None]))

    batches = [{"x": np.full(8, value, np.float32)} for value in (1, 2, 6)]
    validation = ValidationLoss(5, jax.jit(eval_step), MESH, batches, ["toy"])
    found = validation({"scale": jnp.float32(2)}, 10)
    assert found == {"eval/loss": 6.0, "eval/accuracy": 6.0, "eval/loss/toy": 6.0}


@pytest.mark.parametrize("wrong", [Norm, Norm("a", 0), Norm("a", "5"), "loss", lambda *_: {}])
def test_what_is_no_evaluator_is_named(wrong):
    check_evaluators([Norm("a")])
    with pytest.raises(UserError, match="which is no Evaluator"):
        check_evaluators([wrong])
