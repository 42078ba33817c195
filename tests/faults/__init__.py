"""Random faults: processes are killed, files damaged, disks fail, clocks jump; nothing is lost.

    python -m tests.faults --faults 200 --seed 0 --folder /tmp/faults [--family decoder]

`commands.py` has the program's modes over tiny tasks, `kinds.py` the faults, `oracle.py` what must
hold afterwards. The oracle reads files with json and TensorStore, and imports nothing of the
program.
"""
