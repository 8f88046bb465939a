"""Invoke an endpoint with the AWS SDK, and print what it returns as JSON."""

import json
import os
from typing import Any

import boto3
from botocore.config import Config

client = boto3.client(
    "sagemaker-runtime",
    endpoint_url=os.environ["URL"],
    region_name="us-east-1",
    aws_access_key_id="nobody",
    aws_secret_access_key="nothing",  # noqa: S106 # pragma: allowlist secret
    config=Config(retries={"total_max_attempts": 1}),
)


def invoke(body: str, content_type: str, **options: Any) -> dict[str, Any]:
    """Return the response of the endpoint, or the error that the client raises."""
    try:
        response = client.invoke_endpoint(EndpointName="crop-yield", Body=body, ContentType=content_type, **options)
    except client.exceptions.ModelError as error:
        return {"status": error.response["OriginalStatusCode"], "message": error.response["OriginalMessage"]}
    return {
        "type": response["ContentType"],
        "body": response["Body"].read().decode(),
        "attributes": response.get("CustomAttributes"),
    }


print(
    json.dumps(
        {
            "csv": invoke("75,63,44\n91,88,64\n", "text/csv", Accept="text/csv"),
            "header": invoke("rainfall,humidity,temp\n63,44,75\n88,64,91\n", "text/csv", Accept="text/csv"),
            "json": invoke('{"instances": [{"features": [75, 63, 44]}]}', "application/json"),
            "lines": invoke('{"features": [75, 63, 44]}\n', "application/jsonlines", Accept="application/jsonlines"),
            "options": invoke("75,63,44", "text/csv", Accept="text/csv", CustomAttributes="interval=0.9"),
            "model": invoke("75,63,44", "text/csv", TargetModel="other.tar.gz"),
            "wrong": invoke("75,63", "text/csv"),
        }
    )
)
