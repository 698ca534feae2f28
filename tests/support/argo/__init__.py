"""Argo Workflows and Argo Events on one machine, as far as flows that Metaflow compiled need them.

A pod is a process in a mount namespace of its own: an empty working directory, home, /tmp and /mnt/out, this checkout
hidden, the environment of the manifest and of its secret, and the installed packages in place of an image. A template
or an expression that is not understood here ends the test. Exit hooks are not run, and pods do not share cores fairly.
"""
