"""How the weights that come with sdlab were made."""
