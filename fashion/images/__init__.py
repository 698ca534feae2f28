"""Pictures: decoding, preparing, normalising, describing, corrupting and storing them."""
