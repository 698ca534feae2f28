"""The name and the pages of the classifier's site. Knows nothing of what is on them."""

from bentos.web.html import Site

SITE = Site("Fashion classifier", {"Monitoring": "/monitoring", "API": "/docs"})
