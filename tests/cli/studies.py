"""A tiny study for the tests of `run.py study`: one run before the grid, and four in it."""

import pathlib

TINY = """
include 'gin/recipes/gym_demo.gin'
include 'gin/models/tiny_test.gin'
VOCABULARY = 'bytes'
MIXTURE_OR_TASK_NAME = 'gym.scale_1'
EVAL_MIXTURES = 'gym.scale_1'
TASK_FEATURE_LENGTHS = {'inputs': 64, 'targets': 16}
BATCH_SIZE = 8
TRAIN_STEPS = 3
NUM_EVAL_EXAMPLES = 3
loop.train.log_every_steps = 1
config.ModelConfig.num_encoder_layers = 1
config.ModelConfig.num_decoder_layers = 1
"""
STUDY = """
from __gin__ import dynamic_registration
from instruct.study import plan

plan.Study.title = 'Tiny'
plan.Study.recipe = 'TINY'
plan.Study.settings = "INITIAL_CHECKPOINT_PATH = '{before:pretrain}'"
plan.Study.axes = {
    'tasks': {'0': '', '1': 'MIXTURE_OR_TASK_NAME = %ONE_TASK'},
    'vocabulary': {'bytes': '', 'gym': "VOCABULARY = 'gym'"},
    'TRAIN_STEPS': %STEPS,
}
STEPS = (3,)
plan.Study.seed_axis = ''
plan.Study.skip = {'tasks': '0', 'vocabulary': 'gym'}
plan.Study.only_eval = {'tasks': '0'}
plan.Study.before = {'pretrain': "include 'TINY'"}
"""


def write_study(folder: pathlib.Path, text: str = STUDY) -> str:
    """Writes the study's gin files; returns the path of the study."""
    (folder / "tiny.gin").write_text(TINY)
    path = folder / "study.gin"
    path.write_text(text.replace("TINY", str(folder / "tiny.gin")))
    return str(path)
