"""A lake in a bucket of an AWS emulator for the system tests.

    bucket.py fetch URL BUCKET PREFIX FOLDER   copies every object below the prefix into a folder
    bucket.py count URL LAKE                   rows of samples as two readers see them in place: delta-rs by the log, and
                                               pyarrow by the list of files; LAKE is s3://bucket/prefix

Prints one line of JSON.
"""

import json
import pathlib
import sys

import deltalake
import pyarrow.dataset
import pyarrow.fs
from streams import client


def fetch(url, bucket, prefix, folder):
    s3, root, objects = client(url, "s3"), pathlib.Path(folder), 0
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{prefix}/"):
        for item in page.get("Contents", []):
            path = root / item["Key"][len(prefix) + 1 :]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(s3.get_object(Bucket=bucket, Key=item["Key"])["Body"].read())
            objects += 1
    return {"objects": objects}


def count(url, lake):
    options = {
        "AWS_ENDPOINT_URL": url,
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "eu-west-1",
    }
    table = deltalake.DeltaTable(f"{lake}/samples", storage_options=options)
    files = pyarrow.fs.S3FileSystem(
        access_key="test",
        secret_key="test",
        region="eu-west-1",
        scheme="http",
        endpoint_override=url.removeprefix("http://"),
    )
    place = lake.removeprefix("s3://") + "/samples/hot"
    listed = pyarrow.dataset.dataset(place, filesystem=files, format="parquet", partitioning="hive")
    return {"by_log": table.to_pyarrow_dataset().count_rows(), "by_list": listed.count_rows()}


def main():
    match sys.argv[1:]:
        case ["fetch", url, bucket, prefix, folder]:
            print(json.dumps(fetch(url, bucket, prefix, folder)))
        case ["count", url, lake]:
            print(json.dumps(count(url, lake)))
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
