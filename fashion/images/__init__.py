"""Pictures: decoding, fitting, normalising, describing, corrupting and storing them."""
