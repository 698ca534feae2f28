-- PostgreSQL's image runs this once, on an empty volume. The database of the prediction log is there already.
CREATE DATABASE mlflow;
CREATE DATABASE optuna;
