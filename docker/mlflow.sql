-- Beside the queue's database, which the image makes by itself
CREATE DATABASE mlflow;
