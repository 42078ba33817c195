"""Generation settings in a model's `config.json`, as before transformers 4.26."""

from instruct.checkpoints.generation_settings import settings_of_config


def test_an_old_way_to_force_the_first_token():
    config = {"force_bos_token_to_be_generated": True, "bos_token_id": 7, "d_model": 8}
    assert settings_of_config(config) == {"forced_bos_token_id": 7}
