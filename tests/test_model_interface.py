import pytest

from instruct.model_interface import Model
from instruct.models.model import make_model
from tests.models.test_config import TINY
from tests.models.test_decoder_config import GEMMA2_2B


@pytest.mark.parametrize(
    ("config", "layout"), [(TINY, "encoder_decoder"), (GEMMA2_2B, "decoder_only")]
)
def test_the_model_of_a_configuration_has_the_whole_interface(config, layout):
    model = make_model(config)
    assert model.config is config and model.config.layout == layout
    names = [name for name in vars(Model) if not name.startswith("_")]
    assert len(names) > 10 and all(hasattr(model, name) for name in names)
    assert hash(model) == hash(make_model(config))
