"""The folder of a machine's state: its format, its move to another path, its backup. Knows no runs and no models."""
