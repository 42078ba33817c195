"""`make_model`: the model of a configuration."""

from instruct.model_interface import Model
from instruct.models.config import ModelConfig
from instruct.models.decoder_config import DecoderConfig
from instruct.models.decoder_only import DecoderOnly
from instruct.models.encoder_decoder import EncoderDecoder
from instruct.models.pair import PairModel
from instruct.models.pair_config import PairConfig

AnyConfig = ModelConfig | DecoderConfig | PairConfig
_MODELS: dict[type, type] = {
    ModelConfig: EncoderDecoder,
    DecoderConfig: DecoderOnly,
    PairConfig: PairModel,
}


def make_model(config: AnyConfig) -> Model:
    """The model of a configuration."""
    return _MODELS[type(config)](config)
