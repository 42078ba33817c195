"""What every family checks of a `config.json`, and says about it."""

import pytest

from instruct.checkpoints.family import build, check_fixed, check_flags, computed, required
from instruct.checkpoints.huggingface_config import FAMILIES
from instruct.errors import UserError
from instruct.models.stack_config import RopeScaling


def test_settings_are_named_with_their_file():
    assert required({"hidden_size": 8}, {"hidden_size": "d_model"}, "here") == {"d_model": 8}
    with pytest.raises(UserError, match="here lacks hidden_size, head_dim"):
        required({"head_dim": None}, {"hidden_size": "d_model", "head_dim": "head_dim"}, "here")
    check_flags({"tied": None, "biased": True}, ("tied", "biased", "other"), "here")
    with pytest.raises(UserError, match="here: tied is 0; it must be true or false"):
        check_flags({"tied": 0}, ("tied",), "here")
    check_fixed({"factor": 1.0, "other": None}, {"factor": 1, "other": 2}, "here")
    with pytest.raises(UserError, match="here: factor is 0.5, which is not computed here; only 1"):
        check_fixed({"factor": 0.5}, {"factor": 1}, "here")
    assert computed("swish", {"silu": 1, "swish": 2}, "here: act") == 2
    with pytest.raises(UserError, match="here: act 'x' is not computed here; use one of silu"):
        computed("x", {"silu": 1}, "here: act")
    with pytest.raises(UserError, match="here describes an impossible model: RopeScaling.factor"):
        build(RopeScaling, {"factor": 0.5}, "here")


@pytest.mark.parametrize("name", list(FAMILIES))
def test_no_name_is_given_twice(name):
    """Each of our parameters has one name there, and each name there one parameter here."""
    rules = FAMILIES[name].rules
    assert len({rule.ours for rule in rules}) == len({rule.theirs for rule in rules}) == len(rules)
    assert {FAMILIES[name].embedding, FAMILIES[name].head} <= {rule.theirs for rule in rules}
