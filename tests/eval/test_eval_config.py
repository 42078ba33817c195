"""Settings of an evaluation; what they do is in test_runner.py."""

import pytest

from instruct.checkpoints.trained_run import TrainedRun
from instruct.errors import UserError
from instruct.eval.eval_config import EvalConfig, trained_data


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"mixtures": ()}, "mixtures is"),
        ({"mixtures": ("a", "")}, "mixtures is"),
        ({"mixtures": 5}, "mixtures is 5"),
        ({"splits": 5}, "splits is 5"),
        ({"name": 5}, "name is 5"),
        ({"checkpoints": None}, "checkpoints is None"),
        ({"checkpoints": 2.5}, "checkpoints is 2.5"),
        ({"splits": ()}, "splits is"),
        ({"num_examples": 0}, "num_examples is 0"),
        ({"num_examples": True}, "num_examples is True"),
        ({"bootstrap_samples": -1}, "bootstrap_samples is -1"),
        ({"name": "a/b"}, "a folder name, not a path"),
        ({"name": "training"}, "names the evaluations that training writes"),
        ({"name": "training-few"}, "names the evaluations that training writes"),
        ({"checkpoints": "newest"}, "checkpoints is 'newest'"),
        ({"checkpoints": ("x",)}, "checkpoints is"),
        ({"checkpoints": -1}, "checkpoints is -1"),
    ],
)
def test_bad_settings_are_named(values, says):
    with pytest.raises(UserError, match=says):
        EvalConfig(**({"mixtures": "gym.demo"} | values))


def test_one_suite_or_step_may_stand_alone():
    config = EvalConfig("gym.demo", splits="test", checkpoints=5)
    assert (config.suites, config.splits, config.steps) == (("gym.demo",), ("test",), (5,))
    assert EvalConfig(["a", "b"], checkpoints=(3, 1)).steps == (3, 1)
    assert EvalConfig("a", checkpoints="all").steps == ()


def test_prompts_are_framed_as_the_run_trained_them(tmp_path):
    lengths = {"inputs": 8, "targets": 4}

    def frame(config, layout, chat_template=None):
        run = TrainedRun(tmp_path, {"config": config}, "infer.infer")
        return trained_data(run, layout, "bytes", lengths, chat_template).frame

    assert frame({}, "encoder_decoder").prompt("a") == [100, 1]
    # A decoder of another program: nothing follows the prompt.
    assert frame({}, "decoder_only").prompt("a") == [0, 100]
    trained = {"data.vocabulary": "bytes"}  # before there were separators
    assert frame(trained, "decoder_only").prompt("a") == [0, 100, 1]
    assert frame(trained | {"data.separator": "."}, "decoder_only").prompt("a") == [0, 100, 49]
    with pytest.raises(UserError, match="no chat template"):
        frame({}, "decoder_only", chat_template=True)
