"""Both directions of SeqIO: our tasks for it, its tasks for us."""
