"""Family `flan2021`: the 72 tasks of the Flan 2021 part of the Flan Collection."""
