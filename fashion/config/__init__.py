"""Configuration: composed by Hydra from configs/, checked, and typed. Knows values, not what is done with them."""
