-- Runs once, as the superuser, when the volume of PostgreSQL is empty. Each service has a database and a user of its own.
\getenv queue_password QUEUE_PASSWORD
\getenv mlflow_password MLFLOW_DB_PASSWORD
CREATE ROLE queue LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE PASSWORD :'queue_password';
CREATE ROLE mlflow LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE PASSWORD :'mlflow_password';
CREATE DATABASE queue OWNER queue;
CREATE DATABASE mlflow OWNER mlflow;
REVOKE ALL ON DATABASE queue, mlflow, postgres FROM PUBLIC;
