-- The image itself creates the queue's database
CREATE DATABASE mlflow;
