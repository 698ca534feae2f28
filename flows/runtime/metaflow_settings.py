"""Print Metaflow's settings of a cluster as JSON, from the environment or from Metaflow's configuration file.

A script: the library imports no Metaflow, and asks for them by running this.
"""

import json

from metaflow import metaflow_config

NAMES = (
    "DEFAULT_DATASTORE",
    "DATASTORE_SYSROOT_GS",
    "DATASTORE_SYSROOT_S3",
    "DATASTORE_SYSROOT_AZURE",
    "SERVICE_URL",
    "KUBERNETES_NAMESPACE",
    "KUBERNETES_SECRETS",
    "KUBERNETES_SERVICE_ACCOUNT",
    "ARGO_EVENTS_WEBHOOK_URL",
    "ARGO_EVENTS_EVENT",
    "ARGO_EVENTS_EVENT_SOURCE",
    "ARGO_EVENTS_SERVICE_ACCOUNT",
)

if __name__ == "__main__":
    print(json.dumps({f"METAFLOW_{name}": getattr(metaflow_config, name) or "" for name in NAMES}))
