#!/usr/bin/env python3
"""Reads a lake with duckdb, polars, pyarrow, pandas and deltalake and compares what they find.

    check_lake.py LAKE_DIR [--expect totals.json] [--json]

Each reader tells for table `samples`: rows, rows per metric, the sum of each metric, the exact
smallest and greatest 64-bit integer, the first and the last time, the number of devices; and the
number of rows of every other table. With --expect these must equal the file's too: an object with
any of the keys rows, devices, ts_min_us, ts_max_us, i64_min, i64_max, metrics (name to {rows, sum})
and tables (name to rows). The exit code is 1 if any two differ.

Sums are compared to 1 part in 10^9, for readers add in different orders; NaN and infinities are
left out of a sum and counted in its rows. All else is compared exactly.
"""

import argparse
import json
import math
import os
import pathlib
import sys

COLUMNS = ["device_id", "metric", "ts", "value_f64", "value_i64", "value_bool"]
TABLES = ["logs", "quarantine", "gaps", "epochs", "devices", "metrics", "digests"]


def glob_of(lake, table):
    """Pattern of a table's files."""
    return str(lake / table / "hot" / "dt=*" / "*.parquet")


def files_of(lake, table):
    """A table's files."""
    return sorted(str(path) for path in (lake / table / "hot").glob("dt=*/*.parquet"))


def finite(value):
    """Whether a number can be added up."""
    return value is not None and math.isfinite(value)


def add_up(rows):
    """Totals of rows (device, metric, microseconds, float, integer, boolean), row by row."""
    totals = {"rows": 0, "metrics": {}}
    devices, times, integers = set(), [], []
    for device, metric, ts_us, f64, i64, boolean in rows:
        totals["rows"] += 1
        devices.add(device)
        times.append(ts_us)
        entry = totals["metrics"].setdefault(metric, {"rows": 0, "terms": []})
        entry["rows"] += 1
        if finite(f64):
            entry["terms"].append(f64)
        if i64 is not None:
            integers.append(i64)
            entry["terms"].append(i64)
        if boolean is not None:
            entry["terms"].append(int(boolean))
    for entry in totals["metrics"].values():
        entry["sum"] = math.fsum(entry.pop("terms"))
    totals["devices"] = len(devices)
    totals["ts_min_us"], totals["ts_max_us"] = (min(times), max(times)) if times else (None, None)
    totals["i64_min"] = min(integers, default=None)
    totals["i64_max"] = max(integers, default=None)
    return totals


def with_duckdb(lake):
    import duckdb

    db = duckdb.connect()
    db.execute("SET TimeZone = 'UTC'")

    def source(table):
        return (
            f"read_parquet('{glob_of(lake, table)}', hive_partitioning = true, "
            "hive_types = {'dt': DATE})"
        )

    totals = {"rows": 0, "metrics": {}, "devices": 0}
    for key in ("ts_min_us", "ts_max_us", "i64_min", "i64_max"):
        totals[key] = None
    if files_of(lake, "samples"):
        row = db.execute(
            "SELECT count(*), count(DISTINCT device_id), epoch_us(min(ts)), epoch_us(max(ts)), "
            f"min(value_i64), max(value_i64), count(*) FILTER (dt <> CAST(ts AS DATE)) "
            f"FROM {source('samples')}"
        ).fetchone()
        keys = ("rows", "devices", "ts_min_us", "ts_max_us", "i64_min", "i64_max")
        totals.update(zip(keys, row))
        if row[-1]:
            raise SystemExit(f"duckdb: {row[-1]} rows lie under another date than their own")
        for metric, rows, total in db.execute(
            "SELECT metric, count(*), coalesce(fsum(value_f64) FILTER (isfinite(value_f64)), 0) + "
            "coalesce(fsum(CAST(value_i64 AS DOUBLE)), 0) + "
            f"coalesce(sum(CAST(value_bool AS INT)), 0) FROM {source('samples')} GROUP BY metric"
        ).fetchall():
            totals["metrics"][metric] = {"rows": rows, "sum": float(total)}
    counts = {}
    for table in TABLES:
        query = f"SELECT count(*) FROM {source(table)}"
        counts[table] = db.execute(query).fetchone()[0] if files_of(lake, table) else 0
    totals["tables"] = counts
    return totals


def with_polars(lake):
    import polars as pl

    if not files_of(lake, "samples"):
        totals = add_up([])
    else:
        frame = pl.scan_parquet(glob_of(lake, "samples"), hive_partitioning=True).select(COLUMNS)
        frame = frame.with_columns(pl.col("ts").dt.epoch("us")).collect()
        totals = add_up(frame.iter_rows())
    totals["tables"] = {
        table: pl.scan_parquet(glob_of(lake, table)).select(pl.len()).collect().item()
        if files_of(lake, table)
        else 0
        for table in TABLES
    }
    return totals


def arrow_rows(table):
    """Rows of an Arrow table with the columns above."""
    import pyarrow as pa

    columns = [table.column(name) for name in COLUMNS]
    columns[2] = columns[2].cast(pa.int64())
    return zip(*(column.to_pylist() for column in columns))


def with_pyarrow(lake):
    import pyarrow.dataset as ds

    def dataset(table):
        return ds.dataset(files_of(lake, table), format="parquet")

    totals = add_up(arrow_rows(dataset("samples").to_table(COLUMNS)) if files_of(lake, "samples") else [])
    totals["tables"] = {
        table: dataset(table).count_rows() if files_of(lake, table) else 0 for table in TABLES
    }
    return totals


def with_pandas(lake):
    import pandas as pd

    def frame(table, columns):
        # Plain pandas turns integers with nulls into floats, which is why the back end is named.
        parts = [
            pd.read_parquet(path, columns=columns, dtype_backend="pyarrow")
            for path in files_of(lake, table)
        ]
        return pd.concat(parts) if parts else None

    samples = frame("samples", COLUMNS)
    if samples is None:
        totals = add_up([])
    else:
        columns = [samples[name] for name in COLUMNS]
        columns[2] = columns[2].astype("int64[pyarrow]")
        lists = [column.array.__arrow_array__().to_pylist() for column in columns]
        totals = add_up(zip(*lists))
    totals["tables"] = {}
    for table in TABLES:
        rows = frame(table, None)
        totals["tables"][table] = 0 if rows is None else len(rows)
    return totals


def with_deltalake(lake):
    from deltalake import DeltaTable

    def table(name):
        return DeltaTable(str(lake / name)).to_pyarrow_table()

    totals = add_up(arrow_rows(table("samples")))
    totals["tables"] = {name: table(name).num_rows for name in TABLES}
    return totals


READERS = {
    "duckdb": with_duckdb,
    "polars": with_polars,
    "pyarrow": with_pyarrow,
    "pandas": with_pandas,
    "deltalake": with_deltalake,
}


def flatten(totals):
    """One level of keys, so that totals can be compared and printed line by line."""
    flat = {key: value for key, value in totals.items() if key not in ("metrics", "tables")}
    for metric, entry in totals.get("metrics", {}).items():
        flat.update({f"{metric}: {key}": value for key, value in entry.items()})
    flat.update({f"table {name}": rows for name, rows in totals.get("tables", {}).items()})
    return flat


def same(a, b):
    """Whether two totals agree."""
    if isinstance(a, float) or isinstance(b, float):
        return a is not None and b is not None and math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-6)
    return a == b


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("lake", type=pathlib.Path)
    parser.add_argument("--expect", type=pathlib.Path, help="totals to compare with")
    parser.add_argument("--json", action="store_true", help="print one object instead of a table")
    options = parser.parse_args()

    columns = {name: flatten(read(options.lake)) for name, read in READERS.items()}
    keys = sorted({key for column in columns.values() for key in column})
    if options.expect:
        expected = flatten(json.loads(options.expect.read_text()))
        keys = sorted(set(keys) | set(expected))
        columns = {"expected": expected, **columns}
    differing = []
    for key in keys:
        # What is not expected, readers must agree on nevertheless.
        values = [column.get(key) for name, column in columns.items() if name != "expected" or key in column]
        if not all(same(values[0], value) for value in values[1:]):
            differing.append(key)

    if options.json:
        print(json.dumps({"ok": not differing, "differing": differing, "totals": columns}))
    else:
        width = max((len(key) for key in keys), default=0)
        print(" " * width, *(f"{name:>22}" for name in columns), sep="  ")
        for key in keys:
            cells = [f"{column.get(key, '')!s:>22}" for column in columns.values()]
            print(f"{key:<{width}}", *cells, "DIFFERS" if key in differing else "", sep="  ")
    return 1 if differing else 0


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # Five libraries with threads of their own were loaded into one process; taking them down at the
    # interpreter's end now and then aborts it. Nothing is left to do, and the verdict stands.
    os._exit(status)
