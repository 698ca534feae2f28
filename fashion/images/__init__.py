"""Pictures: decoding, preparing, normalising, describing, corrupting and storing them. Knows no model and no labels."""
