from instruct.models.decoder_only import DecoderOnly
from instruct.models.encoder_decoder import EncoderDecoder
from instruct.models.model import make_model
from tests.models.test_config import TINY
from tests.models.test_decoder_config import GEMMA2_2B


def test_the_class_of_a_configuration_is_its_family():
    assert make_model(TINY) == EncoderDecoder(TINY)
    assert make_model(GEMMA2_2B) == DecoderOnly(GEMMA2_2B)
