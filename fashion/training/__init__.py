"""Training: networks, batches, the loop, tuning, export, registration. The one home of torch."""
