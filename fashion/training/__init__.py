"""Training: networks, batches, the loop, tuning, export. The one home of torch; knows no flow and no gate."""
