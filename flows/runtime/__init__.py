"""What flows need of Metaflow: command line, supervision, events, chaining, pods, manifests, cards. Holds no steps."""
