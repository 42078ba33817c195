"""`Workspace`: folders of data, stores and wordings, and permission to download.

The command line builds it (`instruct/cli/environment.py`), the library takes it as an argument, and
worker processes get it pickled. The library reads no environment variables.
"""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from instruct.files import is_address

# Environment variables that the command line reads; messages name them.
DATA_VARIABLE = "INSTRUCT_DATA_DIR"
STORE_VARIABLE = "INSTRUCT_STORE_DIR"
TFDS_VARIABLE = "TFDS_DATA_DIR"
FLAN_VARIABLE = "INSTRUCT_FLAN_CHECKOUT"
DOWNLOAD_VARIABLE = "INSTRUCT_DOWNLOAD"
STAGE_VARIABLE = "INSTRUCT_STAGE_DIR"
TOXICITY_VARIABLE = "INSTRUCT_TOXICITY_CLASSIFIER"

ToxicityClassifier = Callable[[Sequence[str]], Sequence[float]]


@dataclasses.dataclass(frozen=True)
class Workspace:
    """Folders of this machine (`~` is expanded) and settings for reading data.

    Attributes:
        data_dir: the user's data sets, one sub-folder per release.
        store_dir: prepared record stores. Given an address (`BucketPath`), this is the folder of
            its copies on this machine, below `stage_dir`, and `store_bucket` is the address.
        store_bucket: where stores are staged from and uploaded to; None: `store_dir` is the place.
        stage_dir: copies of the stores of buckets.
        tfds_dir: data sets prepared by TensorFlow Datasets.
        hub_cache: repositories downloaded by `hf download`.
        datasets_cache: Arrow files of the library `datasets`.
        flan_checkout: a checkout of google-research/FLAN whose wordings replace this project's.
        downloads: whether sources may download data.
        toxicity_classifier: a function from texts to probabilities of toxicity, or its name as
            "module:function"; "" for none.
    """

    data_dir: Path = Path("~/instruct_data")
    store_dir: Path = Path("~/.cache/instruct/stores")
    store_bucket: Path | None = None
    stage_dir: Path = Path("~/.cache/instruct/staged")
    tfds_dir: Path = Path("~/tensorflow_datasets")
    hub_cache: Path = Path("~/.cache/huggingface/hub")
    datasets_cache: Path = Path("~/.cache/huggingface/datasets")
    flan_checkout: Path | None = None
    downloads: bool = False
    toxicity_classifier: str | ToxicityClassifier = ""

    def __post_init__(self) -> None:
        if is_address(self.store_dir):
            object.__setattr__(self, "store_bucket", self.store_dir)
            copies = self.stage_dir / str(self.store_dir).replace("://", "/")
            object.__setattr__(self, "store_dir", copies)
        for name, path in self._paths().items():
            object.__setattr__(self, name, path.expanduser())

    @property
    def shared_store_dir(self) -> Path:
        """The place of the stores that all hosts share: the bucket, else `store_dir`."""
        return self.store_dir if self.store_bucket is None else self.store_bucket

    def absolute(self) -> "Workspace":
        """The same with absolute paths, for processes that start in another folder."""
        paths = {name: path.absolute() for name, path in self._paths().items()}
        return dataclasses.replace(self, **paths)

    def _paths(self) -> dict[str, Path]:
        return {name: value for name, value in vars(self).items() if isinstance(value, Path)}
