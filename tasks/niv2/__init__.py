"""Family `niv2`: the Natural-Instructions tasks of the Flan Collection."""
