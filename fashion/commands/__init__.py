"""The command `fashion`: one file a noun. Parses arguments and prints; the library does the work."""
