"""gin/models has the published models: the settings of config.json, counted by transformers."""

import dataclasses

import pytest

from instruct import gin_config
from instruct.checkpoints.huggingface_config import FAMILIES
from instruct.cli.settings import bound_model
from instruct.models.stack_config import ComputeConfig
from tests.published_models import HUGGING_FACE, PAIRS, PALM

# Of the whole checkpoints of Gemma 3, their vision tower (SigLIP) and width of the projection.
WITH_VISION = {"4b": 4_300_079_472, "12b": 12_187_325_040, "27b": 27_432_406_640}
VISION_TOWER, VISION_WIDTH = 416_866_032, 1152


def gin_model(name):
    gin_config.load([f"gin/models/{name}.gin"])
    model = bound_model(gin_config.entry_arguments(gin_config.ENTRIES))
    assert model is not None
    return model


@pytest.mark.parametrize("name", [*HUGGING_FACE, *PAIRS])
def test_a_file_is_what_config_json_says(name):
    count, kind, config = (HUGGING_FACE | PAIRS)[name]
    published, ours = FAMILIES[kind].read(config, name), gin_model(name)
    computing = {
        field.name: getattr(ours, field.name) for field in dataclasses.fields(ComputeConfig)
    }
    assert dataclasses.replace(published, **computing) == ours
    assert ours.num_params() == count


@pytest.mark.slow
@pytest.mark.parametrize("name", HUGGING_FACE)
def test_transformers_counts_the_same_parameters(name):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    count, kind, settings = HUGGING_FACE[name]
    config = transformers.AutoConfig.for_model(kind, max_position_embeddings=131_072, **settings)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    assert sum(parameter.numel() for parameter in model.parameters()) == count


@pytest.mark.slow
@pytest.mark.parametrize("name", PAIRS)
def test_transformers_counts_the_same_parameters_of_pairs(name):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    count, kind, settings = PAIRS[name]
    config = transformers.AutoConfig.for_model(kind, **settings)
    with torch.device("meta"):
        model = transformers.AutoModelForSeq2SeqLM.from_config(config)
    text = {
        name: parameter.numel()
        for name, parameter in model.named_parameters()
        if not any(part in name for part in ("vision_tower", "multi_modal", "eoi_embedding"))
    }
    assert sum(text.values()) == count


@pytest.mark.parametrize("size", WITH_VISION)
def test_gemma_3_is_its_checkpoint_without_the_vision_tower(size):
    count, _, config = HUGGING_FACE[f"gemma3_{size}"]
    projection = VISION_WIDTH * (config["hidden_size"] + 1)
    assert count == WITH_VISION[size] - VISION_TOWER - projection


@pytest.mark.parametrize("name", PALM)
def test_palm_has_the_parameters_of_the_paper(name):
    count, printed = PALM[name]
    assert f"{count / 1e9:.3f}e9" == printed and gin_model(name).num_params() == count
