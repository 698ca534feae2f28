"""Configuration: composed by Hydra from configs/, checked, and typed."""
