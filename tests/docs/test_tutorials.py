"""docs/tutorials: a shell runs every command block of each page, in order, at small size.

A page's bash blocks are one script, run in a folder that looks like a fresh clone with an empty
home folder. A block after "`NAME`:" is written to that file. `SMALL` is
all that differs from the page. A block after the comment `<!-- not run: REASON -->` is left out.
"""

import dataclasses
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import uuid

import pytest

from instruct.data.vocab import GYM_MODEL
from tests.docs.program_server import client_text
from tests.ports import free_port
from tests.xla_flags import QUICK_COMPILATION

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "tutorials"
PAGES = sorted(path.stem for path in FOLDER.glob("*.md"))
MOST_LINES, MOST_NOT_RUN = 130, 3
# Page -> {text on the page: what the test runs instead}; small.gin is `SMALL_GIN`.
SMALL: dict[str, dict[str, str]] = {
    "add_a_task": {
        '"gym.demo": 3.0': '"gym.easy_legs": 3.0',
        "'gym.demo')": "'gym.easy_legs')",
        "gin/recipes/gym_demo.gin": "gin/recipes/gym_demo.gin --gin_file=small.gin",
        "--gin.TRAIN_STEPS=600": "--gin.TRAIN_STEPS=2",
    },
    "finetune_flan_t5": {
        "flan_t5_small_finetune.gin": "flan_t5_small_finetune.gin --gin_file=small.gin",
        "--gin.TRAIN_STEPS=1000": "--gin.TRAIN_STEPS=2",
        "MAX_DECODE_STEPS=64": "MAX_DECODE_STEPS=4",
    },
    "reproduce_table_3": {
        "replica_30min.gin": "replica_30min.gin --gin_file=small.gin",
        "--only=tasks=54": "--gin.EVAL_MIXTURES=lists.counting_unseen_categories",
    },
    "scale_out": {
        "gin/recipes/gym_demo.gin": "gin/recipes/gym_demo.gin --gin_file=small.gin "
        "--gin.MIXTURE_OR_TASK_NAME=gym.easy_legs --gin.EVAL_MIXTURES=gym.easy_legs",
        "--gin.TRAIN_STEPS=100": "--gin.TRAIN_STEPS=1",
        "--gin.TRAIN_STEPS=200": "--gin.TRAIN_STEPS=2",
        "--gin.TRAIN_STEPS=300": "--gin.TRAIN_STEPS=3",
        "gin/recipes/flan_t5_small.gin": "gin/recipes/gym_demo.gin --gin_file=small.gin",
        "--gin_file=gin/hardware/v5e-16.gin --topology=v5e-16": "--topology=v5e-4",
    },
}
# A model that compiles in seconds, and short rows.
SMALL_GIN = """
from __gin__ import dynamic_registration
from instruct.models import config
from instruct.train import loop

TASK_FEATURE_LENGTHS = {'inputs': 128, 'targets': 16}
BATCH_SIZE = 8
TRAIN_STEPS = 2
NUM_EVAL_EXAMPLES = 4
loop.train.num_eval_examples = 8
config.ModelConfig.vocab_size = 6144
config.ModelConfig.d_model = 32
config.ModelConfig.num_heads = 8
config.ModelConfig.head_dim = 4
config.ModelConfig.d_ff = 48
config.ModelConfig.num_encoder_layers = 1
config.ModelConfig.num_decoder_layers = 1
config.ModelConfig.dtype = 'float32'
"""


@dataclasses.dataclass(frozen=True)
class Block:
    """A code block of a page: its language, the file it is (or ""), why it is not run (or "")."""

    language: str
    text: str
    file: str
    not_run: str


def blocks(page: str) -> list[Block]:
    """The code blocks of a page in order."""
    matches = re.finditer(
        r"(?:`(?P<file>\w+\.\w+)`:\n\n)?(?:^<!-- not run: (?P<why>[^\n]+?) -->\n)?"
        r"^```(?P<language>\w*)\n(?P<text>.*?)^```$",
        (FOLDER / f"{page}.md").read_text(),
        re.DOTALL | re.MULTILINE,
    )
    return [Block(m["language"], m["text"], m["file"] or "", m["why"] or "") for m in matches]


@dataclasses.dataclass(frozen=True)
class Clone:
    """A folder of the project's files beside those that a tutorial writes, and a home folder."""

    folder: pathlib.Path
    home: pathlib.Path
    environment: dict[str, str]

    def follow(self, page: str) -> str:
        """Runs a page's commands, of which none may fail; returns what they print."""
        small = SMALL[page] | {"localhost:8476": f"localhost:{free_port()}"}
        script = ["set -euo pipefail"]
        for number, block in enumerate(blocks(page)):
            text = block.text
            for long, short in small.items():
                text = text.replace(long, short)
            if block.file:
                (self.folder / block.file).write_text(text)
            elif block.language == "bash" and not block.not_run:
                script += [f"echo '--- block {number}' >&2", text]
        done = subprocess.run(
            ["bash", "-c", "\n".join(script)],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """A folder for $PATH, whose `python` asks a server of this module."""
    folder, name = tmp_path_factory.mktemp("bin"), uuid.uuid4().hex
    (folder / "python").write_text(client_text(name))
    (folder / "python").chmod(0o755)
    log = folder / "server.log"
    with log.open("w") as errors:
        server = subprocess.Popen(
            [sys.executable, "-m", "tests.docs.program_server", name],
            cwd=ROOT,
            env=os.environ | {"XLA_FLAGS": QUICK_COMPILATION},  # one device
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    try:
        assert server.stdout is not None and server.stdout.readline() == "ready\n", log.read_text()
        yield folder
    finally:
        server.kill()
        server.communicate()


@pytest.fixture
def clone(program, tmp_path) -> Clone:
    folder, home = tmp_path / "instruct", tmp_path / "home"
    folder.mkdir()
    home.mkdir()
    for path in ROOT.iterdir():
        if not path.name.startswith(".") and path.name not in ("runs", "build", "tests"):
            (folder / path.name).symlink_to(path)
    (folder / "small.gin").write_text(SMALL_GIN)
    variables = {"HOME": str(home), "PATH": f"{program}:{os.environ['PATH']}"}
    variables["XLA_FLAGS"] = QUICK_COMPILATION
    # Stores lie where they lie for a user, below the home folder.
    own = {name: value for name, value in os.environ.items() if not name.startswith("INSTRUCT_")}
    return Clone(folder, home, own | variables)


@pytest.mark.parametrize("page", PAGES)
def test_pages_are_short_and_say_what_is_not_run(page):
    text = (FOLDER / f"{page}.md").read_text()
    assert len(text.splitlines()) <= MOST_LINES
    head = text.split("\n## ")[0]
    assert all(word in head for word in ("**You need**", "**Time**", "**At the end**"))
    not_run = [block for block in blocks(page) if block.not_run]
    assert len(not_run) <= MOST_NOT_RUN
    prose = re.sub("<!--.*?-->", "", text)
    assert not not_run or "ot run" in prose, "the prose says so, too"
    assert len(blocks(page)) == len(re.findall("^```", text, re.MULTILINE)) / 2


@pytest.mark.parametrize("page", PAGES)
def test_what_is_small_in_the_test_is_on_the_page(page):
    run = [b.text for b in blocks(page) if b.file or (b.language == "bash" and not b.not_run)]
    assert [text for text in SMALL[page] if text not in "".join(run)] == []


def write_dialogues(folder: pathlib.Path) -> None:
    """Made-up dialogues and their summaries, as the page has them."""
    folder.mkdir()
    for split, count in {"train": 40, "test": 4}.items():
        rows = []
        for number in range(count):
            name = ("Anna", "Omar", "Mia")[number % 3]
            thing = ("bread", "the keys", "two tickets", "a lamp")[number % 4]
            dialogue = f"{name}: Hello, have you got {thing}?\nSara: Not yet, {number} are there."
            rows.append({"dialogue": dialogue, "summary": f"Sara has not got {thing} yet."})
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{split}.jsonl").write_text(text)


def write_flan_t5(folder: pathlib.Path) -> None:
    """A Hugging Face folder of the sizes of `SMALL_GIN`, random weights, a small vocabulary."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    transformers = pytest.importorskip("transformers")
    config = transformers.T5Config(
        vocab_size=6144,
        d_model=32,
        num_heads=8,
        d_kv=4,
        d_ff=48,
        num_layers=1,
        num_decoder_layers=1,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
        decoder_start_token_id=0,
    )
    transformers.T5ForConditionalGeneration(config).save_pretrained(folder)
    shutil.copy(GYM_MODEL, folder / "spiece.model")


@pytest.mark.slow
def test_finetune_flan_t5(clone):
    write_flan_t5(clone.home / "flan-t5-small")
    write_dialogues(clone.home / "dialogues")
    clone.follow("finetune_flan_t5")
    assert "own.dialogues" in (clone.folder / "runs/tuned/before_after.md").read_text()
    files = {path.name for path in (clone.home / "my-flan-t5").iterdir()}
    assert {"config.json", "model.safetensors", "spiece.model"} <= files


@pytest.mark.slow
def test_add_a_task(clone):
    clone.follow("add_a_task")
    report = (clone.folder / "runs/mine/report.md").read_text()
    assert "weather.reports" in report and r"one\_word" in report
    mixture = json.loads((clone.folder / "runs/mine/mixture.json").read_text())
    shares = {leaf["name"]: leaf["asked"] for leaf in mixture["leaves"]}
    assert shares["weather.reports.zs_noopt"] == pytest.approx(0.25 * 2 / 3)


@pytest.mark.slow
def test_reproduce_table_3(clone):
    printed = clone.follow("reproduce_table_3")
    assert "25 runs, 20 of them trained" in printed and "chip-hours" in printed
    assert "540B" in printed and "2 runs: 2 done" in printed
    assert (clone.folder / "runs/replica_30min/study.html").is_file()


@pytest.mark.slow
def test_scale_out(clone):
    printed = clone.follow("scale_out")
    lines = (clone.folder / "runs/scale/metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3]
    assert "fits" in printed
    jobs = clone.folder / "runs/gym_scale/jobs"
    assert "sbatch" in (jobs / "submit.sh").read_text()
