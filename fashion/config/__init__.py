"""What can be configured: composed by Hydra from configs/, checked, and typed."""
