"""Make the user of drivers and workers on an MLflow server with users, or give it its password again.

Reads MLFLOW_TRACKING_URI, the admin's MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, and the new user's
WORKER_USERNAME and WORKER_PASSWORD. The new user owns the experiments that it makes, and is no admin.
"""

import os

from mlflow.exceptions import MlflowException
from mlflow.server import get_app_client


def main() -> None:
    """Make the user."""
    client = get_app_client("basic-auth", tracking_uri=os.environ["MLFLOW_TRACKING_URI"])
    name, password = os.environ["WORKER_USERNAME"], os.environ["WORKER_PASSWORD"]
    try:
        client.create_user(name, password)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        client.update_user_password(name, password)


if __name__ == "__main__":
    main()
