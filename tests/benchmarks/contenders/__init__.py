"""What the service is compared with: one model package, served in the ways that others serve it."""
