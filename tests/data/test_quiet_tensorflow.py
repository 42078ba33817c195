"""TensorFlow's lines about itself stay off the screen; what anybody else writes is shown."""

import os
import subprocess
import sys

import pytest

from instruct.data.quiet_tensorflow import quiet_stderr

LINES = """\
WARNING: All log messages before absl::InitializeLog() is called are written to STDERR
I0000 00:00:1795911302.450866    8513 port.cc:153] oneDNN custom operations are on.
E0000 00:00:1738143.123456   12345 cuda_dnn.cc:8310] Unable to register cuDNN factory
W0000 00:00:1738143.123456   12345 computation_placer.cc:177] computation placer already registered
E0000 00:00:1795911318.019624    8513 cuda_platform.cc:52] failed call to cuInit: INTERNAL
2024-10-01 10:00:00.123456: I tensorflow/core/platform/cpu_feature_guard.cc:210] This TensorFlow
To enable the following instructions: AVX2 FMA, in other operations, rebuild TensorFlow with the
"""


def test_library_lines_are_left_out_and_others_shown(capfd):
    with quiet_stderr():
        os.write(2, LINES.encode() + b"a warning of yours\nerror: E0000 is no code\n")
    assert capfd.readouterr().err == "a warning of yours\nerror: E0000 is no code\n"


def test_all_is_shown_if_the_import_fails(capfd):
    with pytest.raises(ImportError), quiet_stderr():
        os.write(2, LINES.encode())
        raise ImportError
    assert capfd.readouterr().err == LINES


@pytest.mark.slow
def test_whoever_imports_tensorflow_loads_it_quietly(tmp_path):
    """A user's module too, and its first operation; errors of both are seen."""
    (tmp_path / "my_module.py").write_text(
        "import sys\nimport tensorflow as tf\n"
        "print(tf.constant(1).numpy(), len(tf.config.get_visible_devices('GPU')))\n"
        "print('my warning', file=sys.stderr)\n"
    )
    code = (
        "from instruct.data.quiet_tensorflow import keep_quiet\n"
        "keep_quiet(); keep_quiet()\nimport my_module\nraise ValueError('seen')"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code],
        env={k: v for k, v in os.environ.items() if k not in ("TF_CPP_MIN_LOG_LEVEL",)}
        | {"PYTHONPATH": os.pathsep.join([os.getcwd(), str(tmp_path)])},
        capture_output=True,
        text=True,
    )
    assert shown.stdout == "1 0\n"
    first, *_, last = shown.stderr.splitlines()
    assert (first, last) == ("my warning", "ValueError: seen")
