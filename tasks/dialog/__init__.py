"""Family `dialog`: the next turn of a conversation."""
