-- External table over what `fashion log export gs://BUCKET/predictions` writes: BigQuery reads the files in place.
-- Replace BUCKET, and the data set `fashion`, which must be in the bucket's location; then
--   bq query --use_legacy_sql=false < predictions.sql
-- `label` is the true class by the latest feedback, `predicted` the model's. A filter on `date` reads these days only.
CREATE OR REPLACE EXTERNAL TABLE fashion.predictions (
  prediction_id STRING,
  time TIMESTAMP,
  model_name STRING,
  model_version STRING,
  model_digest STRING,
  role STRING,
  label INT64,
  predicted INT64,
  confidence FLOAT64,
  probabilities ARRAY<FLOAT64>,
  embedding ARRAY<FLOAT64>,
  brightness FLOAT64,
  contrast FLOAT64,
  foreground FLOAT64,
  saturated FLOAT64,
  sharpness FLOAT64,
  asymmetry FLOAT64,
  centre_x FLOAT64,
  centre_y FLOAT64,
  image_sha256 STRING,
  latency_ms FLOAT64,
  client STRING,
  feedback ARRAY<STRUCT<true_label INT64, source STRING, time TIMESTAMP>>
)
WITH PARTITION COLUMNS (date DATE)
OPTIONS (
  format = 'PARQUET',
  uris = ['gs://BUCKET/predictions/*.parquet'],
  hive_partition_uri_prefix = 'gs://BUCKET/predictions',
  require_hive_partition_filter = FALSE,
  enable_list_inference = TRUE
);
