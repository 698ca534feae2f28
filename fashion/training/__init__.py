"""Everything that needs torch: models, batches, the loop, tuning, saliency, export. The service never imports it."""
