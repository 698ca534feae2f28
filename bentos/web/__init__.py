"""What the services share: bodies, uploads, responses, API keys, OpenAPI documents and pages. Knows no model."""
