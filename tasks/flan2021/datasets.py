"""The publishers' data sets behind the Flan 2021 tasks: `tables/flan2021.tsv`.

Data sets with the same examples have one contamination group, so that no mixture trains on one
while another is held out.
"""

from typing import NamedTuple

from tasks.table_files import read_table


class DataSet(NamedTuple):
    """One publisher's data set.

    Attributes:
        dataset: its name.
        license: its own, as an SPDX name where there is one; "unknown" where none is known to us.
        url: where it is described.
        group: contamination group; "" for one of its own.
        manual: files to download by hand before TFDS can prepare it, and from where; "" if none.
    """

    dataset: str
    license: str
    url: str
    group: str = ""
    manual: str = ""


DATASETS = {row["dataset"]: DataSet(**row) for row in read_table("flan2021")}
