"""Tests of infra/lambda/headwater_stream.py, the reader of our streams for AWS Lambda.

    python -m unittest tests/cloud/lambda_test.py       events made by hand, in the shape that AWS documents
    lambda_test.py emulator URL STREAM [LAKE]           a stream of an emulator of AWS

The latter reads every shard, makes events of it, and calls the handler as Lambda does, with a `take` that fails now and
then. Each line must be taken, in the order of its stream, and once without repeats. With LAKE, its samples must be what
came. Prints a line of JSON with what was counted; what differs goes to stderr, and the exit code is 1 then.
"""

import ast
import base64
import collections
import contextlib
import gzip
import io
import json
import pathlib
import random
import subprocess
import sys
import tempfile
import tracemalloc
import unittest
from unittest import mock

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "infra/lambda/headwater_stream.py"
sys.path.insert(0, str(SCRIPT.parent))

import headwater_stream  # noqa: E402

# Records of an event at most: Lambda's default.
BATCH = 100
SEED = 7


def sample(seq, row=0, **more):
    line = {"kind": "samples", "device": "pump-7", "lane": "live", "epoch": "9007199254740993", "seq": seq, "row": row}
    line.update({"ts": "2026-01-02T03:04:05.000006Z", "error_ms": 3, "batch_samples": 2, "values": {"bar": 1.5}})
    return {**line, **more}


def log(seq, line=0, **more):
    stream = {"kind": "log", "device": "pump-7", "lane": "live", "epoch": "9007199254740993", "seq": seq}
    return {**stream, "line": line, "ts": "2026-01-02T03:04:05.000006Z", "message": "grüezi \u2028", **more}


QUARANTINE = {"kind": "quarantine", "device": "pump-7", "lane": "live", "epoch": "5", "seq": 4, "part": 0}
QUARANTINE.update({"samples": 1, "reason": "clock", "cause": "x", "payload_bytes": 2, "payload": "{}"})
GAP = {"kind": "gap", "device": "pump-7", "lane": "live", "epoch": "5", "first_seq": 2, "last_seq": 3}
GAP.update({"from": "a", "to": "b", "span": "exact", "reason": "full", "stage": "spool", "at": "c"})
EPOCH = {"kind": "epoch", "device": "pump-7", "lane": "live", "epoch": "5", "state": "opened", "boot": "1", "at": "c"}
UNKNOWN = {"kind": "of a later version", "new": [1, {"two": None}]}
ALL = [sample(1, new_key={"a": [1]}), log(2), QUARANTINE, GAP, EPOCH, UNKNOWN]


def text(lines):
    return b"".join(json.dumps(line, ensure_ascii=False).encode() + b"\n" for line in lines)


def member(lines):
    return gzip.compress(text(lines))


def as_event_record(data, number, shard="shardId-000000000006", key="0f"):
    """As https://docs.aws.amazon.com/lambda/latest/dg/with-kinesis.html shows it."""
    return {
        "kinesis": {
            "kinesisSchemaVersion": "1.0",
            "partitionKey": key,
            "sequenceNumber": number,
            "data": base64.b64encode(data).decode(),
            "approximateArrivalTimestamp": 1545084650.987,
        },
        "eventSource": "aws:kinesis",
        "eventVersion": "1.0",
        "eventID": f"{shard}:{number}",
        "eventName": "aws:kinesis:record",
        "invokeIdentityArn": "arn:aws:iam::123456789012:role/lambda-role",
        "awsRegion": "eu-west-1",
        "eventSourceARN": "arn:aws:kinesis:eu-west-1:123456789012:stream/telemetry",
    }


def number(index):
    return str(49590338271490256608559692538361571095921575989136588898 + index)


def event(*datas):
    return {"Records": [as_event_record(data, number(index)) for index, data in enumerate(datas)]}


def answer_to(event, take):
    """What Lambda gets, and what was logged."""
    said = io.StringIO()
    with mock.patch.object(headwater_stream, "take", take), contextlib.redirect_stdout(said):
        answer = headwater_stream.handler(event, None)
    # Lambda sends and receives JSON.
    return json.loads(json.dumps(answer)), [json.loads(line) for line in said.getvalue().splitlines()]


def failed(index):
    return {"batchItemFailures": [{"itemIdentifier": number(index)}]}


ALL_TAKEN = {"batchItemFailures": []}


class Handler(unittest.TestCase):
    def test_every_kind_and_key_comes_in_order_a_record_at_a_time(self):
        taken = []
        answer, logged = answer_to(event(member(ALL[:2]), member(ALL[2:])), taken.append)
        self.assertEqual(taken, [ALL[:2], ALL[2:]])
        self.assertEqual(answer, ALL_TAKEN)
        self.assertEqual(logged, [])

    def test_members_one_after_the_other_are_one_record(self):
        taken = []
        answer, _ = answer_to(event(member(ALL[:2]) + member([]) + member(ALL[2:])), taken.append)
        self.assertEqual((taken, answer), ([ALL], ALL_TAKEN))

    def test_a_failure_ends_the_event_and_names_the_first_record_that_comes_again(self):
        taken = []

        def take(lines):
            if lines[0]["seq"] in (2, 4):
                raise ConnectionError("the database is away")
            taken.append(lines[0]["seq"])

        answer, logged = answer_to(event(*(member([sample(seq)]) for seq in range(5))), take)
        self.assertEqual((taken, answer), ([0, 1], failed(2)))
        [line] = logged
        self.assertEqual(line["failed"], number(2))
        self.assertIn("ConnectionError: the database is away", line["reason"])

    def test_nothing_of_a_record_that_cannot_be_read_is_taken(self):
        good = member([sample(1)])
        bad = {
            "empty": b"",
            "no gzip": text([sample(1)]),
            "cut": good[:-1],
            "a wrong checksum": good[:-8] + bytes([good[-8] ^ 1]) + good[-7:],
            "something behind the member": good + b"x",
            "zeros behind the member": good + bytes(4),
            "the second member cut": good + good[:-20],
            "no JSON": gzip.compress(text([sample(1)]) + b"{\n"),
            "no object": gzip.compress(text([sample(1)]) + b"5\n"),
            "no UTF-8": gzip.compress(text([sample(1)]) + b'{"kind":"\xff"}\n'),
            "an empty line": gzip.compress(text([sample(1)]) + b"\n"),
            "deep": gzip.compress(b"[" * 500_000),
        }
        for name, data in bad.items():
            with self.subTest(name):
                taken = []
                answer, logged = answer_to(event(good, data, good), taken.append)
                self.assertEqual((len(taken), answer), (1, failed(1)))
                self.assertIn("Unreadable", logged[0]["reason"])
        with self.subTest("no base64"):
            records = event(good, good)
            # Lax decoders skip what they do not know.
            records["Records"][1]["kinesis"]["data"] = "*" + records["Records"][1]["kinesis"]["data"]
            self.assertEqual(answer_to(records, len)[0], failed(1))

    def test_an_event_without_numbers_fails_as_a_whole(self):
        records = event(member(ALL))
        del records["Records"][0]["kinesis"]["sequenceNumber"]
        with self.assertRaises(KeyError):
            answer_to(records, len)

    def test_as_shipped_each_record_is_a_line_in_the_log(self):
        answer, logged = answer_to(event(member(ALL), member([GAP, GAP])), headwater_stream.take)
        self.assertEqual(answer, ALL_TAKEN)
        self.assertEqual([line["lines"] for line in logged], [6, 2])
        self.assertEqual(logged[1], {"lines": 2, "kinds": {"gap": 2}, "devices": 1})


class Bounds(unittest.TestCase):
    def test_a_record_may_have_its_bound_and_not_a_byte_more(self):
        line = text([sample(1, pad="")])
        pad = headwater_stream.MAX_RECORD_BYTES // 8 - len(line)
        full = text([sample(1, pad="x" * pad)]) * 8
        self.assertEqual(len(full), headwater_stream.MAX_RECORD_BYTES)
        self.assertEqual(answer_to(event(gzip.compress(full)), len)[0], ALL_TAKEN)
        # As members that are small enough each, too.
        for data in (gzip.compress(full + b"{}\n"), gzip.compress(full) + gzip.compress(b"{}\n")):
            answer, logged = answer_to(event(data), len)
            self.assertEqual(answer, failed(0))
            self.assertIn(f"more than {headwater_stream.MAX_RECORD_BYTES} bytes", logged[0]["reason"])

    def test_what_a_bomb_would_fill_is_never_in_memory(self):
        bomb = gzip.compress(b" " * (64 << 20))
        lines = gzip.compress((b" " * 1000 + b"\n") * (64 << 10))
        for name, data in {"a long line": bomb, "many lines": lines}.items():
            with self.subTest(name):
                tracemalloc.start()
                answer, _ = answer_to(event(data), len)
                peak = tracemalloc.get_traced_memory()[1]
                tracemalloc.stop()
                self.assertEqual(answer, failed(0))
                self.assertLess(peak, 3 * headwater_stream.MAX_RECORD_BYTES)

    def test_a_line_may_have_its_bound_and_not_a_byte_more(self):
        full = b'{"a":"%s"}' % (b"x" * (headwater_stream.MAX_LINE_BYTES - 8))
        self.assertEqual(len(full), headwater_stream.MAX_LINE_BYTES)
        for tail in (b"\n", b""):
            self.assertEqual(answer_to(event(gzip.compress(full + tail)), len)[0], ALL_TAKEN)
            answer, logged = answer_to(event(gzip.compress(b" " + full + tail)), len)
            self.assertEqual(answer, failed(0))
            self.assertIn("a line is longer", logged[0]["reason"])

    def test_members_are_found_however_the_bytes_are_cut(self):
        data = member(ALL[:1]) + member(ALL[1:4]) + member(ALL[4:])
        for size in (1, 2, 7, 64, len(data)):
            chunks = [data[at : at + size] for at in range(0, len(data), size)]
            self.assertEqual(list(headwater_stream.lines_of(chunks)), ALL)


class DeDuplicate(unittest.TestCase):
    def setUp(self):
        self.seen, self.taken = collections.OrderedDict(), []

    def pass_on(self, *lines, **more):
        headwater_stream.de_duplicate(lines, self.seen, self.taken.extend, **more)

    def test_what_came_before_is_left_out_and_nothing_else(self):
        other = [
            sample(1, row=1),
            sample(2),
            sample(1, device="pump-8"),
            sample(1, lane="bulk"),
            sample(1, epoch="6"),
            sample(1, values={"rpm": 2}),
            log(1, line=1),
            log(1, part=0),
            log(1, part=1),
            {**QUARANTINE, "part": 1},
            {**GAP, "last_seq": 4},
            {**EPOCH, "state": "ended"},
            {**UNKNOWN, "more": 1},
            {"kind": ["odd"]},
            {"kind": "samples"},
            sample(1, values={}),
            sample(1, values=3),
        ]
        lines = [sample(1), log(1), *ALL[2:], *other]
        self.pass_on(*lines)
        self.assertEqual(self.taken, lines)
        self.pass_on(*lines)
        for line in lines:
            self.pass_on(line, line)
        self.assertEqual(self.taken, lines)

    def test_an_identity_is_told_from_a_content(self):
        # The same row as another version of the collector writes it, or received by another clock.
        self.pass_on(sample(1), log(1))
        self.pass_on(sample(1, via="gate", error_ms=9), log(1, source="syslog"))
        self.pass_on(QUARANTINE, {**QUARANTINE, "cause": "y"})
        self.assertEqual(self.taken, [sample(1), log(1), QUARANTINE])

    def test_of_a_row_that_came_in_part_the_rest_is_new(self):
        self.pass_on(sample(1, values={"a": 1, "b": 2}), sample(1, values={"b": 2, "c": 3}))
        self.pass_on(sample(1, values={"a": 1, "b": 2, "c": 3, "d": 4}))
        self.assertEqual([line["values"] for line in self.taken], [{"a": 1, "b": 2}, {"c": 3}, {"d": 4}])

    def test_what_was_not_taken_is_not_remembered(self):
        def fail(lines):
            raise ConnectionError

        with self.assertRaises(ConnectionError):
            headwater_stream.de_duplicate([sample(1)], self.seen, fail)
        self.pass_on(sample(1))
        self.assertEqual(self.taken, [sample(1)])
        headwater_stream.de_duplicate([sample(1)], self.seen, fail)

    def test_memory_is_bounded_and_the_longest_unused_goes_first(self):
        self.pass_on(*map(sample, range(1000)), max_identities=3)
        self.assertEqual(len(self.seen), 3)
        self.taken.clear()
        self.pass_on(sample(997), max_identities=3)
        self.pass_on(sample(1), max_identities=3)
        self.pass_on(sample(997), max_identities=3)
        self.pass_on(sample(998), max_identities=3)
        self.assertEqual([line["seq"] for line in self.taken], [1, 998])


class Command(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def file(self, name, data):
        (self.folder / name).write_bytes(data)
        return name

    def run_with(self, *arguments):
        ran = subprocess.run([sys.executable, SCRIPT, *arguments], cwd=self.folder, capture_output=True, timeout=60)
        return ran.returncode, ran.stdout, ran.stderr.decode()

    def lines(self, *arguments):
        code, printed, errors = self.run_with(*arguments)
        self.assertEqual((code, errors), (0, ""))
        return [json.loads(line) for line in printed.split(b"\n")[:-1]]

    def test_lines_of_all_files_and_members_are_printed(self):
        first = self.file("1.gz", member(ALL) + member(ALL[:1]))
        # Half of a surrogate pair, which has no UTF-8, and a number that is no double.
        odd = b'{"kind":"\\ud83d","n":9007199254740993}'
        second = self.file("2.gz", member([log(9)]) + gzip.compress(odd))
        self.assertEqual(self.lines(first, second), [*ALL, ALL[0], log(9), json.loads(odd)])
        self.assertIn("grüezi".encode(), self.run_with(first)[1])

    def test_unique_leaves_out_what_came_in_an_earlier_file(self):
        files = [self.file("1.gz", member(ALL) + member(ALL[:1])), self.file("2.gz", member([log(9), *ALL]))]
        self.assertEqual(self.lines("--unique", *files), [*ALL, log(9)])

    def test_a_file_may_be_larger_than_a_record(self):
        rows = [sample(seq, pad="x" * 1000) for seq in range(5000)]
        self.assertGreater(len(text(rows)), headwater_stream.MAX_RECORD_BYTES)
        self.assertEqual(self.lines(self.file("1.gz", member(rows))), rows)

    def test_a_file_that_is_cut_gives_what_it_has_and_is_named(self):
        good = member([sample(1)])
        cut = self.file("cut.gz", member(ALL) + good[:-3])
        code, printed, errors = self.run_with(cut, "away.gz", self.file("good.gz", member([log(5)])))
        self.assertEqual(code, 1)
        lines = [json.loads(line) for line in printed.split(b"\n")[:-1]]
        self.assertEqual((lines[: len(ALL)], lines[-1]), (ALL, log(5)))
        self.assertEqual([line.split(":")[0] for line in errors.splitlines()], ["cut.gz", "away.gz"])

    def test_a_reader_that_has_enough_ends_it_quietly(self):
        name = self.file("1.gz", member([sample(seq) for seq in range(20_000)]))
        with subprocess.Popen(
            [sys.executable, SCRIPT, name], cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            process.stdout.readline()
            process.stdout.close()
            self.assertEqual(process.stderr.read(), b"")

    def test_without_files_it_says_how_it_is_used(self):
        for arguments in ([], ["--unique"], ["--help"]):
            code, _, errors = self.run_with(*arguments)
            self.assertEqual(code, 2)
            self.assertIn("[--unique] FILE...", errors)


class Shipping(unittest.TestCase):
    def test_it_needs_no_more_than_python_3_9(self):
        tree = ast.parse(SCRIPT.read_text(), feature_version=(3, 9))
        imports = [name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names]
        self.assertFalse([node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)])
        allowed = {"base64", "collections", "hashlib", "json", "os", "sys", "zlib"}
        self.assertLessEqual(set(imports), allowed)


def shards(url, stream):
    """The records of each shard as an event has them."""
    # In here, since the tests above need no client of AWS.
    from streams import client

    kinesis = client(url, "kinesis")
    for shard in kinesis.list_shards(StreamName=stream)["Shards"]:
        records = []
        at = kinesis.get_shard_iterator(
            StreamName=stream, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
        )["ShardIterator"]
        while at:
            page = kinesis.get_records(ShardIterator=at, Limit=1000)
            for record in page["Records"]:
                records.append(
                    as_event_record(record["Data"], record["SequenceNumber"], shard["ShardId"], record["PartitionKey"])
                )
            is_end = not page["Records"] and page.get("MillisBehindLatest", 0) == 0
            at = None if is_end else page.get("NextShardIterator")
        yield records


def direct_lines(records):
    """The lines of a shard, read without the module that is tested."""
    for record in records:
        for line in gzip.decompress(base64.b64decode(record["kinesis"]["data"])).splitlines():
            yield json.loads(line)


def without_repeats(lines):
    """(stream, what its line says) in order, each once: for a row one for each metric. Without the tested module."""
    found = {}
    for line in lines:
        stream = (line.get("device"), line.get("lane"), line.get("epoch"))
        if line["kind"] == "samples":
            for metric, value in line["values"].items():
                found.setdefault((stream, "samples", line["seq"], line["row"], metric), (line["ts"], repr(value)))
        elif line["kind"] == "log":
            found.setdefault((stream, "log", line["seq"], line["line"], line.get("part")), line["message"])
        elif line["kind"] == "quarantine":
            found.setdefault((stream, "quarantine", line["seq"], line["part"]), line["cause"])
        else:
            found.setdefault((stream, json.dumps(line, sort_keys=True)), None)
    return list(found.items())


def by_stream(found):
    streams = collections.defaultdict(list)
    for key, value in found:
        streams[key[0]].append((key, value))
    return dict(streams)


def invoke(records, chance, faults):
    """As Lambda's poller: events of a shard in order, again from the record on that is named. Now and then it brings
    again what was taken. Returns how often it called."""
    calls = 0
    for begin in range(0, len(records), BATCH):
        batch = records[begin : begin + BATCH]
        repeats = 1 if chance.random() < 0.2 else 0
        left = batch
        # A record fails once, so an event is called once more for each of its records at most.
        for _ in range(2 * len(batch) + 2):
            calls += 1
            with contextlib.redirect_stdout(io.StringIO()):
                answer = json.loads(json.dumps(headwater_stream.handler({"Records": left}, None)))
            numbers = [item["itemIdentifier"] for item in answer["batchItemFailures"]]
            if numbers:
                held = [record["kinesis"]["sequenceNumber"] for record in left]
                if not set(numbers) <= set(held):
                    faults.append(f"{numbers} are no records of the event")
                    break
                left = left[held.index(min(numbers, key=int)) :]
            elif repeats:
                repeats, left = repeats - 1, batch
            else:
                break
        else:
            faults.append("an event never ended")
    return calls


def check(url, stream, lake=None, seed=SEED):
    """Returns what was counted, and what differs."""
    chance, faults = random.Random(seed), []
    counts = {"seed": seed, "shards": 0, "records": 0, "lines": 0, "calls": 0, "failures": 0, "raw": 0, "unique": 0}
    raw, once = [], []
    for records in shards(url, stream):
        counts["shards"] += 1
        counts["records"] += len(records)
        numbers = [int(record["kinesis"]["sequenceNumber"]) for record in records]
        if numbers != sorted(set(numbers)):
            faults.append("a shard's numbers do not ascend")
        direct = list(direct_lines(records))
        counts["lines"] += len(direct)
        want = without_repeats(direct)
        have_failed = set()

        def is_to_fail(lines):
            what = json.dumps(lines)
            if what in have_failed or chance.random() > 0.3:
                return False
            have_failed.add(what)
            counts["failures"] += 1
            return True

        # A `take` without transactions: where it fails, some lines are stored.
        shard_raw = []

        def take_some(lines):
            if is_to_fail(lines):
                shard_raw.extend(lines[: chance.randrange(len(lines))])
                raise ConnectionError("failed half way")
            shard_raw.extend(lines)

        # One with transactions, behind `de_duplicate`.
        shard_once, seen = [], collections.OrderedDict()

        def store(lines):
            if is_to_fail(lines):
                raise ConnectionError("failed")
            shard_once.extend(lines)

        def take_once(lines):
            headwater_stream.de_duplicate(lines, seen, store)

        for take in (take_some, take_once):
            with mock.patch.object(headwater_stream, "take", take):
                counts["calls"] += invoke(records, chance, faults)
            have_failed.clear()
        kept = []
        headwater_stream.de_duplicate(shard_raw, collections.OrderedDict(), kept.extend)
        for name, lines in {"raw": shard_raw, "de-duplicated after": kept, "de-duplicated before": shard_once}.items():
            found = without_repeats(lines)
            if dict(found) != dict(want):
                example = [pair for pair in want if pair not in found][:3]
                faults.append(f"{name}: lacks or changes {example}, {len(found)} for {len(want)}")
            elif by_stream(found) != by_stream(want):
                faults.append(f"{name}: not in the order of the stream")
            said = sum(len(line["values"]) if line["kind"] == "samples" else 1 for line in lines)
            if name != "raw" and said != len(want):
                faults.append(f"{name}: says {said} things, of which {len(want)} are different")
        raw += shard_raw
        once += shard_once
    counts["raw"], counts["unique"] = len(raw), len(once)
    counts["kinds"] = dict(collections.Counter(line["kind"] for line in once))
    if not once:
        faults.append("the stream is empty: nothing was tested")
    if lake is not None:
        import streams

        counts["lake"] = streams.compare("lambda", (("", line) for line in once), streams.lake_samples(lake), faults)
    return counts, faults


def main():
    if sys.argv[1:] == ["unit"]:
        return 0 if unittest.main(argv=sys.argv[:1], exit=False).result.wasSuccessful() else 1
    if sys.argv[1:2] != ["emulator"] or len(sys.argv) not in (4, 5):
        print(__doc__, file=sys.stderr)
        return 2
    counts, faults = check(*sys.argv[2:])
    print(json.dumps(counts))
    for fault in faults[:20]:
        print(fault, file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
