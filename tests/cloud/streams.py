"""Streams of an AWS emulator for the system tests: makes them, and compares what they hold with the lake.

    streams.py make URL                 a Kinesis stream and a Firehose stream into a bucket, all called telemetry, and
                                        a bucket called lakes
    streams.py compare URL LAKE         reads every record of both and compares their rows with the lake's

What is compared is each sample's device, lane, epoch, number, row, metric, time and value. A sample may come twice if
both are the same; of one key of Kinesis a later number never comes before an earlier one for the first time. Prints a
line of JSON with what was counted; what differs goes to stderr, and the exit code is 1 then.
"""

import gzip
import json
import struct
import sys
import time

import botocore.session
import deltalake

NAME = "telemetry"


def client(url, service):
    return botocore.session.get_session().create_client(
        service,
        region_name="eu-west-1",
        endpoint_url=url,
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )


def make(url):
    for bucket in (NAME, "lakes"):
        client(url, "s3").create_bucket(
            Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"}
        )
    kinesis = client(url, "kinesis")
    kinesis.create_stream(StreamName=NAME, ShardCount=2)
    for _ in range(100):
        if kinesis.describe_stream_summary(StreamName=NAME)["StreamDescriptionSummary"]["StreamStatus"] == "ACTIVE":
            break
        time.sleep(0.1)
    client(url, "firehose").create_delivery_stream(
        DeliveryStreamName=NAME,
        DeliveryStreamType="DirectPut",
        ExtendedS3DestinationConfiguration={
            "RoleARN": "arn:aws:iam::000000000000:role/firehose",
            "BucketARN": f"arn:aws:s3:::{NAME}",
        },
    )


def kinesis_lines(url):
    """By partition key, in the order of the shards."""
    kinesis = client(url, "kinesis")
    for shard in kinesis.list_shards(StreamName=NAME)["Shards"]:
        at = kinesis.get_shard_iterator(
            StreamName=NAME, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
        )["ShardIterator"]
        while at:
            page = kinesis.get_records(ShardIterator=at, Limit=1000)
            for record in page["Records"]:
                for line in gzip.decompress(record["Data"]).splitlines():
                    yield record["PartitionKey"], json.loads(line)
            at = page.get("NextShardIterator") if page["Records"] else None


def firehose_lines(url):
    s3 = client(url, "s3")
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=NAME):
        for item in page.get("Contents", []):
            body = s3.get_object(Bucket=NAME, Key=item["Key"])["Body"].read()
            # Members that stand one after the other are one gzip file.
            for line in gzip.decompress(body).splitlines():
                yield "", json.loads(line)


def lake_samples(folder):
    table = deltalake.DeltaTable(f"{folder}/samples").to_pyarrow_table()
    columns = ["device_id", "lane", "epoch", "seq", "row", "metric", "ts"]
    columns += ["value_f64", "value_i64", "value_str", "value_bool"]
    samples = {}
    for row in table.select(columns).to_pylist():
        key = (row["device_id"], row["lane"], str(row["epoch"]), row["seq"], row["row"], row["metric"])
        values = [row[name] for name in columns[7:] if row[name] is not None]
        ts = row["ts"].strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        samples[key] = (ts, values[0] if values else None)
    return samples


def compare(what, lines, lake, faults):
    found, newest = {}, {}
    counts = {"lines": 0, "samples": 0, "repeated": 0}
    kinds = {}
    for group, line in lines:
        counts["lines"] += 1
        kinds[line["kind"]] = kinds.get(line["kind"], 0) + 1
        if line["kind"] != "samples":
            continue
        identity = (line["device"], line["lane"], line["epoch"], line["seq"], line["row"])
        is_new = False
        for metric, value in line["values"].items():
            key = (*identity, metric)
            if key in found:
                counts["repeated"] += 1
                if found[key] != (line["ts"], value):
                    faults.append(f"{what}: {key} came as {found[key]} and as {(line['ts'], value)}")
                continue
            is_new = True
            found[key] = (line["ts"], value)
        stream = identity[:3]
        if group and is_new:
            if newest.get(stream, -1) > line["seq"]:
                faults.append(f"{what}: {stream} brought {line['seq']} after {newest[stream]}")
            newest[stream] = line["seq"]
    counts["samples"] = len(found)
    lacking = [key for key in lake if key not in found]
    foreign = [key for key in found if key not in lake]
    other = [key for key in found if key in lake and not same(found[key], lake[key])]
    for name, keys in [("lacks", lacking), ("has beyond the lake", foreign), ("differs in", other)]:
        if keys:
            example = [(key, found.get(key), lake.get(key)) for key in keys[:3]]
            faults.append(f"{what} {name} {len(keys)}: {example}")
    return {**counts, "kinds": kinds}


def same(line, row):
    (said_at, said), (at, value) = line, row
    if said_at != at:
        return False
    if isinstance(value, float) and value != value:
        return said == "NaN"
    if isinstance(value, float) and isinstance(said, float):
        # Of a single-precision number the line has the shortest text, and the lake the double.
        return value in (said, struct.unpack("f", struct.pack("f", said))[0])
    return said == value


def main():
    if sys.argv[1:2] == ["make"] and len(sys.argv) == 3:
        make(sys.argv[2])
        return 0
    if sys.argv[1:2] != ["compare"] or len(sys.argv) != 4:
        print(__doc__, file=sys.stderr)
        return 2
    url, folder = sys.argv[2:]
    lake, faults = lake_samples(folder), []
    counted = {
        "lake": len(lake),
        "kinesis": compare("kinesis", kinesis_lines(url), lake, faults),
        "firehose": compare("firehose", firehose_lines(url), lake, faults),
    }
    print(json.dumps(counted))
    for fault in faults[:20]:
        print(fault, file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
