"""What the flows need of Metaflow: command line, events, chaining, cards. The steps are in the flows themselves."""
