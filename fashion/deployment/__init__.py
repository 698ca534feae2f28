"""What is set up and rolled out on Google Cloud. Knows its APIs; knows no model, no BentoML and no Metaflow."""
