"""What Google asks for: list prices in the multi-region US, without what is free, as of November 2026.

https://cloud.google.com/storage/pricing, https://cloud.google.com/bigquery/pricing. Load jobs cost nothing.
"""

from typing import Final

from msgspec import Struct

from pixaris_sync.model import JsonValue

#: What a plan says of its dollars.
BASIS: Final = "list price of November 2026, US, without free tier"
_DOLLARS_PER_CLASS_A: Final = 0.005 / 1000
_DOLLARS_PER_CLASS_B: Final = 0.0004 / 1000
_DOLLARS_PER_QUERIED_BYTE: Final = 6.25 / 2**40
#: A query bills so many bytes at least.
QUERY_BYTES_MIN: Final = 10_000_000


class Operations(Struct, frozen=True):
    """What is asked of the cloud, by what it is billed as.

    Attributes:
        uploads: objects that are sent; class A.
        listings: pages of listings; class A.
        lookups: objects, and the bucket itself, that are looked up; class B.
        load_jobs: how many, which cost nothing.
        queries, query_bytes: how many, and what they bill.
        streamed_rows: rows that are streamed: none, in bulk.
    """

    uploads: int = 0
    listings: int = 0
    lookups: int = 0
    load_jobs: int = 0
    queries: int = 0
    query_bytes: int = 0
    streamed_rows: int = 0

    @property
    def count(self) -> int:
        """How many requests that do or read something."""
        return self.uploads + self.listings + self.lookups + self.load_jobs + self.queries

    @property
    def dollars(self) -> float:
        """What they cost."""
        return (
            (self.uploads + self.listings) * _DOLLARS_PER_CLASS_A
            + self.lookups * _DOLLARS_PER_CLASS_B
            + self.query_bytes * _DOLLARS_PER_QUERIED_BYTE
        )

    @property
    def document(self) -> dict[str, JsonValue]:
        """They and their price, for machines."""
        return {
            "class_a_uploads": self.uploads,
            "class_a_listings": self.listings,
            "class_b": self.lookups,
            "load_jobs": self.load_jobs,
            "queries": self.queries,
            "query_bytes": self.query_bytes,
            "streamed_rows": self.streamed_rows,
            "dollars": round(self.dollars, 6),
            "basis": BASIS,
        }
