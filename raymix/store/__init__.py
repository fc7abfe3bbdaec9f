"""The study's storage: immutable, numbered, checksummed records, one writer, everything else derived.

    STUDY/space.yaml           the space as resolved
    STUDY/study.json           seed, versions, hashes, when it began
    STUDY/records/00000001.json ...   every event, in order; the truth
    STUDY/records/00000001-00000512.<hash>.parquet   older events, compacted
    STUDY/driver/ (object stores), STUDY/lock (disks)   who runs the study
    STUDY/observations.parquet, law.json, recommendation.json, report.html   derived, may be deleted

STUDY is a directory or the address of anything that pyarrow.fs opens: `s3://bucket/study`, `gs://bucket/study`.

`objects` holds bytes by name, `log` the order of records, `compact` their Parquet form, `lease` the one driver.
"""

from raymix.store.errors import StoreError
from raymix.store.store import Store

__all__ = ["Store", "StoreError"]
