"""What docs/performance.md says beside its tables."""

from tests.benchmarks.page import Page

PERFORMANCE = Page(
    "performance",
    introduction="""# Performance

Made by a script from [performance.json](performance.json), where every measurement is. To measure again, on a quiet
machine, and write this page anew:
```sh
make bench ARGS="request --home var --json var/request.json"
make bench ARGS="inference --home var --json var/inference.json"
make bench ARGS="drift_scale --json var/drift_scale.json"
make bench ARGS="monitoring_page --json var/monitoring_page.json"
make bench ARGS="batch --json var/batch.json"
make bench ARGS="serving --home var --json var/serving.json"
make bench ARGS="telemetry --home var --json var/telemetry.json"
make bench ARGS="distributed --json var/distributed.json"
.venv/bin/python -m tests.benchmarks.pages request=var/request.json inference=var/inference.json \\
    drift_scale=var/drift_scale.json monitoring_page=var/monitoring_page.json batch=var/batch.json \\
    serving=var/serving.json telemetry=var/telemetry.json distributed=var/distributed.json
```
Servers are compared with those of plain BentoML, LitServe and Ray Serve too. MLServer 1.7 and PyTriton are left out:
MLServer needs FastAPI below 0.116, protobuf below 7 and importlib-resources below 7, PyTriton NumPy below 2, and the
project's lock file has newer ones.
""",
    parts={
        "serving": """## Servers side by side

One model package behind this service and behind what else it could be served with. This service alone keeps a row of
each prediction on the disk before it answers, checks keys and limits, tells how usual a picture is, and stores
pictures.
""",
        "request": """## A request

What is left of a request is the network, the commit that every answer waits for, and the decoder.
""",
        "request_before": """### Before

The same benchmark on the code of before forms were cut at their boundaries, statistics, softmax and typicality made
fewer arrays, ids were formatted without a UUID object, the numbers of a record were checked by their sum first, and a
picture that comes alone was predicted where its request is read. It was measured on another processor, and while other
programs used it, which makes the rest, and whole requests, larger.
""",
        "inference": """## int8

`export.precision=int8` quantises the trained network: weights by output channel, activations by tensor, with the ranges
of 1,000 validation pictures. Temperature, projection, typicality, prediction sets and the reference are then those of
the quantised network, and the gate judges it like any challenger.

float32 stays the default. The gate below would promote int8, which is as accurate, smaller and faster; but that is one
architecture on one processor, and an export in float32 must equal the trained network to 0.001 of a logit, which shows
a broken export before the gate does. In int8 nine of ten labels must stay.
""",
        "drift_scale": """## Drift on a large log

Reading and hashing take longer for more rows; imports, the reference, the tests and the drawing do not.
""",
        "monitoring_page": """## Monitoring a large log

The page is made of a file of counts, to which rows are added as they come: ten times the rows are counted once, and
cost a page nothing more.
""",
        "batch": """## Batch prediction
""",
        "telemetry": """## What OpenTelemetry costs

Traces and pushed metrics are off by default: [how to switch them on](how-to/watch.md).
""",
        "distributed": """## Training on several nodes

`resources.nodes=2` trains with two ranks. Two ranks of one machine share what bounds one of them, its memory and its
caches; for more, there is arithmetic from what was measured.
""",
    },
)
