"""The log of predictions and feedback: records, the local file, shipping and reading it. Makes no prediction."""
