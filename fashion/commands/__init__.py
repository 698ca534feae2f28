"""The command `fashion`: one file a noun. Parses arguments and prints; decides nothing."""
