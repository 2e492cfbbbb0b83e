"""Reads what headwater's collector feeds to Kinesis and Firehose. Python 3.9 or newer, standard library only.

As an AWS Lambda function with a Kinesis event source, whose mapping has ReportBatchItemFailures: set the handler to
`headwater_stream.handler` and edit `take`. It gets the lines of one record at a time, in the order of the shard.

As a command, for the objects that Firehose delivered:

    python headwater_stream.py [--unique] FILE...

prints their lines to stdout, each a JSON object; --unique leaves out those that came before. A file that cannot be
read to its end is named on stderr, and the exit code is 1 then.

A record, and such an object, is one or more gzip members with lines of JSON. A line names its `kind` (samples, log,
quarantine, gap, epoch) and its stream (`device`, `lane`, `epoch`). Kinds and keys that are not known here are passed
on. Lines come at least once: see `identities` for what tells that a line came before.
"""

import base64
import collections
import hashlib
import json
import os
import sys
import zlib

# Bytes of lines in a record, which are all in memory at once: as dicts, about 9 times as much, and 100 MB at worst.
# The collector puts at most 990,000 into one.
MAX_RECORD_BYTES = 4 << 20
# Bytes of a line. The collector's are at most 900,000.
MAX_LINE_BYTES = 1 << 20
# Bytes that are compressed or decompressed at once.
CHUNK_BYTES = 64 << 10
# Identities that `de_duplicate` remembers in a function, about 16 MB.
MAX_IDENTITIES = 100_000
# The same for the command, about 160 MB. After a crash the collector sends at most one batch again, which is 6 MiB of
# lines and so fewer values than this.
MAX_COMMAND_IDENTITIES = 1_000_000

# Keys that tell lines of one kind and stream apart; of a row, also the metric. Other lines are told by all they say.
IDENTITY = {"samples": ("seq", "row"), "log": ("seq", "line", "part"), "quarantine": ("seq", "part")}


class Unreadable(Exception):
    """A record or file that is not gzip members with lines of JSON, or that exceeds a bound."""


def take(lines):
    """Edit this: gets the lines of one record, a list of dicts. Raise to get the record again, and all after it.

    The same lines may come again, so what this does must be the same done twice: write under the key that
    `identities` gives, or pass the lines on through `de_duplicate`, within its limits.

    As it stands it writes one line of JSON to the function's log.
    """
    kinds = collections.Counter(str(line.get("kind")) for line in lines)
    devices = {str(line.get("device")) for line in lines}
    print(json.dumps({"lines": len(lines), "kinds": dict(kinds), "devices": len(devices)}))


def handler(event, context):
    """Gives `take` each record of a Kinesis event. Stops at the first that fails and returns its number: Lambda
    invokes again from that record on, so going on would only break the order."""
    for record in event["Records"]:
        number = record["kinesis"]["sequenceNumber"]
        try:
            take(record_lines(record))
        except Exception as error:  # Whatever `take` raises: the record is not lost, it comes again.
            reason = f"{type(error).__name__}: {error}"
            print(json.dumps({"failed": number, "event": record.get("eventID"), "reason": reason}))
            return {"batchItemFailures": [{"itemIdentifier": number}]}
    return {"batchItemFailures": []}


def record_lines(record):
    """All lines of one record of a Kinesis event, as dicts. Raises `Unreadable`; then none of them is given."""
    try:
        data = base64.b64decode(record["kinesis"]["data"], validate=True)
    except ValueError as error:
        raise Unreadable(f"not base64: {error}") from error
    chunks = (data[at : at + CHUNK_BYTES] for at in range(0, len(data), CHUNK_BYTES))
    return list(lines_of(chunks, MAX_RECORD_BYTES))


def lines_of(chunks, max_bytes=None):
    """Yields each line of gzip members that stand one after the other, as a dict.

    - `chunks`: their bytes, cut anywhere.
    - `max_bytes`: of all lines. None if they are not kept, so that only one line is in memory at a time.
    """
    rest = b""
    for piece in decompressed(chunks, max_bytes):
        *whole, rest = (rest + piece).split(b"\n")
        for line in whole:
            yield parsed(line)
        if len(rest) > MAX_LINE_BYTES:
            raise Unreadable(f"a line is longer than {MAX_LINE_BYTES} bytes")
    if rest:
        yield parsed(rest)


def decompressed(chunks, max_bytes):
    """Yields the content of gzip members in pieces of at most `CHUNK_BYTES`, however well it was compressed."""
    total, members, member = 0, 0, None
    for chunk in chunks:
        while chunk:
            if member is None:
                member = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
                members += 1
            try:
                piece = member.decompress(chunk, CHUNK_BYTES)
            except zlib.error as error:
                raise Unreadable(f"gzip member {members}: {error}") from error
            chunk = member.unconsumed_tail
            if member.eof:
                chunk, member = member.unused_data, None
            total += len(piece)
            if max_bytes is not None and total > max_bytes:
                raise Unreadable(f"more than {max_bytes} bytes of lines")
            yield piece
    if member is not None or members == 0:
        raise Unreadable("ends before its last gzip member does" if members else "empty")


def parsed(line):
    if len(line) > MAX_LINE_BYTES:
        raise Unreadable(f"a line is longer than {MAX_LINE_BYTES} bytes")
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"a line is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise Unreadable(f"a line is no JSON object, but {type(value).__name__}")
    return value


def identities(line):
    """Returns a list of tuples by which a line is known when it comes again: of a row one for each metric, as a row
    with long values stands in several lines; of any other line one.

    | kind | identity |
    |---|---|
    | samples | kind, device, lane, epoch, seq, row, metric |
    | log | kind, device, lane, epoch, seq, line, part (None, or from 0 if the line is one of several) |
    | quarantine | kind, device, lane, epoch, seq, part |
    | all others | kind, all of the line as JSON with sorted keys |
    """
    kind = line.get("kind")
    keys = IDENTITY.get(kind) if isinstance(kind, str) else None
    values = line.get("values") if kind == "samples" else None
    is_known = keys and all(key in line for key in ("device", "lane", "epoch", "seq"))
    if not is_known or (kind == "samples" and not (isinstance(values, dict) and values)):
        return [(kind, json.dumps(line, sort_keys=True))]
    identity = (kind, line["device"], line["lane"], line["epoch"], *(line.get(key) for key in keys))
    return [identity] if values is None else [(*identity, metric) for metric in values]


def de_duplicate(lines, seen, take_new, max_identities=MAX_IDENTITIES):
    """Gives `take_new` those of `lines` that did not come before, and remembers them once it has returned. If it
    raises, nothing is remembered, so that nothing is left out when they come again. Of a row of which some metrics
    came before, it gets the others. If no line is new, it is not called.

    - `seen`: a `collections.OrderedDict` that the caller keeps, empty at first.
    - `max_identities`: how many it holds at most; the longest unused go first. About 160 bytes each.

    Limits: a repeat is noticed if fewer than `max_identities` others came since, and by the same process. Lambda
    starts and stops processes at will, and a cold one remembers nothing. If a line must not be stored twice, store
    it under its identity as the key.
    """
    fresh, new = [], {}
    for line in lines:
        digests = [digest(identity) for identity in identities(line)]
        is_new = [key not in seen and key not in new for key in digests]
        for key in digests:
            if key in seen:
                seen.move_to_end(key)
        if all(is_new):
            fresh.append(line)
        elif any(is_new):
            values = {metric: value for (metric, value), new_one in zip(line["values"].items(), is_new) if new_one}
            fresh.append({**line, "values": values})
        new.update(dict.fromkeys(digests))
    if fresh:
        take_new(fresh)
    seen.update(new)
    while len(seen) > max_identities:
        seen.popitem(last=False)


def digest(identity):
    """16 bytes in place of an identity, which may be as long as a line."""
    return hashlib.blake2b(json.dumps(identity).encode(), digest_size=16).digest()


def chunks_of(path):
    with open(path, "rb") as file:
        while True:
            chunk = file.read(CHUNK_BYTES)
            if not chunk:
                return
            yield chunk


def write(lines):
    for line in lines:
        text = json.dumps(line, ensure_ascii=False, separators=(",", ":"))
        # Half of a surrogate pair has no UTF-8. A backslash, as it came, is JSON as well.
        sys.stdout.buffer.write(text.encode("utf-8", "backslashreplace") + b"\n")


def main(arguments):
    is_unique = arguments[:1] == ["--unique"]
    paths = arguments[is_unique:]
    if not paths or paths[0].startswith("-"):
        print(__doc__, file=sys.stderr)
        return 2
    seen, code = collections.OrderedDict(), 0
    for path in paths:
        try:
            for line in lines_of(chunks_of(path)):
                if is_unique:
                    de_duplicate([line], seen, write, MAX_COMMAND_IDENTITIES)
                else:
                    write([line])
        except BrokenPipeError:
            raise
        except (Unreadable, OSError) as error:
            print(f"{path}: {error}", file=sys.stderr)
            code = 1
    sys.stdout.buffer.flush()
    return code


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except BrokenPipeError:
        # Whoever read has enough. What is left in the buffer must go somewhere when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
