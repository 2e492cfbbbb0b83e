#!/usr/bin/env python3
"""Totals of the lake that the example `fixture` of headwater-lake writes, computed without it.

    expect_fixture.py [SAMPLES] > totals.json
"""

import json
import math
import struct
import sys

DEVICES = 50
METRICS = ["temperature", "pressure", "counter", "extreme", "state", "running", "odd"]
START_US = 1_795_305_000_000_000
DAY_US = 86_400_000_000
MASK = (1 << 64) - 1


def splitmix(k):
    z = (k + 1) * 0x9E3779B97F4A7C15 & MASK
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & MASK
    z = (z ^ z >> 27) * 0x94D049BB133111EB & MASK
    return z ^ z >> 31


def value(k, metric):
    h = splitmix(k)
    if metric == 0:
        return h % 10_000 / 100
    if metric == 1:
        return struct.unpack("f", struct.pack("f", h % 1_000 / 8))[0]
    if metric == 2:
        return h % 100_000
    if metric == 3:
        return [-(2**63), 2**63 - 1, 0, -1][h % 4]
    if metric == 4:
        return ["", "on", "Wörk 日本 🌊", "quote \"'\\\n"][h % 4]
    if metric == 5:
        return h % 2 == 1
    return [math.nan, -0.0, math.inf, -math.inf, 0.5][h % 5]


def main():
    samples = int(sys.argv[1]) if len(sys.argv) > 1 else 200_000
    metrics = {}
    times, devices, integers = [], set(), []
    for k in range(samples):
        metric = k // DEVICES % 7
        entry = metrics.setdefault(METRICS[metric], {"rows": 0, "terms": []})
        entry["rows"] += 1
        reading = value(k, metric)
        if isinstance(reading, bool):
            entry["terms"].append(int(reading))
        elif isinstance(reading, int):
            entry["terms"].append(reading)
            integers.append(reading)
        elif isinstance(reading, float) and math.isfinite(reading):
            entry["terms"].append(reading)
        late = 2 * DAY_US if k % 97 == 0 else 0
        times.append(START_US + k // (DEVICES * 7) * 1_500_001 - late)
        devices.add(k % DEVICES)
    for entry in metrics.values():
        entry["sum"] = math.fsum(entry.pop("terms"))
    totals = {
        "rows": samples,
        "devices": len(devices),
        "ts_min_us": min(times),
        "ts_max_us": max(times),
        "i64_min": min(integers),
        "i64_max": max(integers),
        "metrics": metrics,
        "tables": {
            "logs": 1,
            "quarantine": 0,
            "gaps": DEVICES,
            "epochs": DEVICES,
            "devices": DEVICES,
            "metrics": len(METRICS),
            # The fixture comes from no collector.
            "digests": 0,
        },
    }
    json.dump(totals, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
