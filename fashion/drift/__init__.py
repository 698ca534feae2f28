"""Whether recent traffic still looks like the model's reference, and what follows from it. Trains nothing itself."""
