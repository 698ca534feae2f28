"""The command `fashion`: one file a noun, and what only a command line needs: overview, demo, timer, manifests."""
